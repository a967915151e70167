"""Instructions that calls take, counted by valgrind: exact where times are noisy.

    python _instructions.py NAME...

is the program that is counted. It makes each call once to warm up, and once between two calls of
`ctermid`, which nothing else calls: callgrind writes down there what it has counted. Interpreter
start, imports and setup are in the counts between the pairs, and are not looked at.

Counts do not tell what an instruction takes: a load that straddles cache lines, a thread that is
missing and a cache that is missed do not show. AVX-512 is off, which valgrind does not know.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

KINDS = ("call", "plan", "all")
"""The stateless call, a plan's call, and all gradients."""


def available() -> bool:
    """Whether instructions can be counted here."""
    return shutil.which("valgrind") is not None


def counts(
    names: Sequence[str], python: str = sys.executable, more: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Return the instructions of calls, named "kind/operator".

    Parameters
    ----------
    names : sequence of str
        The calls to count.
    python : str
        The interpreter that runs them.
    more : mapping of str to str, optional
        More of its environment, such as a PYTHONPATH.
    """
    environment = {
        **os.environ, **(more or {}),
        "PYCONV_DISABLE_CPU": "avx512", "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = [
            "valgrind", "--tool=callgrind", "--dump-before=ctermid*",
            f"--callgrind-out-file={out}", python, __file__, *names,
        ]  # fmt: skip
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
        # Numbered from 1; the second of each pair of dumps is of what lies between.
        dumps = [Path(f"{out}.{2 * i + 2}") for i in range(len(names))]
        return {name: _total(dump) for name, dump in zip(names, dumps, strict=True)}


def _total(dump: Path) -> int:
    for line in dump.read_text().splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise ValueError(f"callgrind wrote no total to {dump}")


def main(names: Sequence[str]) -> None:
    """Make the calls."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks._base import QUICK, Call
    from benchmarks._shapes import COUNTED, SMALL

    for name in names:
        kind, operator = name.split("/")
        run = prepared(kind, Call(operator, (SMALL if QUICK else COUNTED)[operator]))
        run()
        gc.collect()
        gc.disable()
        os.ctermid()
        run()
        os.ctermid()
        gc.enable()


def prepared(kind: str, call: Any) -> Callable[[], object]:
    """Return a function that makes one call of a kind."""
    if kind == "call":
        return call
    if kind == "plan":
        plan, given, out = call.plan(), call.given, call()
        return lambda: plan(*given, out=out)
    grad, arrays = call(), list(call.arrays.values())
    return lambda: call.op.backward(grad, *arrays, **call.keywords)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The benchmarks of one build in a process, for `compare.py`: prepares them and times them as told.

    python worker.py FOLDER

FOLDER holds the pyconv to use. Commands and answers are lines of JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONTROL = "control"
"""The calibration kernel: a product by NumPy, which no build of pyconv changes."""

SHORT = 1e-3
"""Shorter calls are timed several at once."""


def timed(name: str) -> Callable[[], object]:
    """Return a function that runs a benchmark, such as "bench_forward.Class.time_plan(layer)"."""
    if name == CONTROL:
        a, b = np.ones((2, 192, 192), np.float32)
        return lambda: a @ b
    path, _, rest = name.partition("(")
    module, cls, method = path.split(".")
    benchmark = getattr(importlib.import_module(f"benchmarks.{module}"), cls)()
    parameter = rest[:-1]
    run = getattr(benchmark, method)
    for setup in (getattr(run, "setup", None), benchmark.setup):
        if setup is not None:
            setup(parameter)
    return lambda: run(parameter)


class Worker:
    """What the process remembers: the benchmark that is prepared."""

    def __init__(self) -> None:
        self.run: Callable[[], object] | None = None
        self.calls = 1

    def prepare(self, name: str) -> dict[str, Any]:
        """Set a benchmark up."""
        self.run = None  # frees the one before
        gc.collect()
        try:
            self.run = timed(name)
        except NotImplementedError as error:
            return {"skipped": str(error)}
        self.run()
        begin = time.perf_counter()
        self.run()
        self.calls = max(1, round(SHORT / max(time.perf_counter() - begin, 1e-7)))
        return {}

    def turn(self, duration: float) -> dict[str, Any]:
        """Return the seconds of the fastest call within a while, three calls at least."""
        assert self.run is not None
        clock, run, calls, best, count = time.perf_counter, self.run, self.calls, 1e9, 0
        gc.disable()
        end = clock() + duration
        while count < 3 or clock() < end:
            begin = clock()
            for _ in range(calls):
                run()
            best = min(best, (clock() - begin) / calls)
            count += 1
        gc.enable()
        return {"fastest": best}


def main(folder: str) -> None:
    """Answer commands until standard input ends."""
    sys.path[:0] = [folder, str(Path(__file__).parent)]
    import pyconv

    if Path(pyconv.__file__).resolve().parents[1] != Path(folder).resolve():
        raise SystemExit(f"pyconv was found in {pyconv.__file__}, not in {folder}")
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(worker, command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

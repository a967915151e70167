"""Compare two commits, and fail if the second one is slower.

    python asv_bench/compare.py main HEAD
    python asv_bench/compare.py main HEAD --bench "Dilated|TwoThreads" --threshold 1.05
    python asv_bench/compare.py main HEAD --continuous     # and `asv continuous`, for its records

Both commits are built by asv, in its environment. Then each build has a process of its own, and for
each benchmark the two take short turns, in an order that changes, so that what slows the machine
down for a while slows both of them down. A turn counts with its fastest call. A benchmark is slower
if all of this holds:

- the fastest call of all turns is slower by more than the threshold,
- so is the median of the ratios of turns that followed each other,
- the 99 % interval of that median, by the bootstrap, does not reach down to 1,
- and it all holds again in new processes with three times as many turns.

Times tell what the machine noticed. Instructions, counted by valgrind if it is there, tell exactly
what was done more often: more than the threshold for counts is slower too. A product by NumPy is
timed like the benchmarks, as a control: where that seems to be slower, the machine is too noisy,
and nothing is said.

The exit status is 1 if anything is slower, 2 if the machine is too noisy or a benchmark fails.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from benchmarks import _instructions  # noqa: E402
from worker import CONTROL  # noqa: E402

THRESHOLD = 1.08
"""Of times: two builds of the same sources differ by less, see `prove.py`."""
COUNTS_THRESHOLD = 1.02
"""Of instructions, which are the same to a thousandth from run to run."""

TURN = 0.015  # seconds
ROUNDS = 12  # of one pair of processes: memory lies differently in each process
PAIRS = 2
SURE = 3  # times as many pairs for what seems slower
RESAMPLES = 2000


# ---- builds ------------------------------------------------------------------------------------


def git(*arguments: str) -> str:
    """Return what git prints in this repository."""
    command = ["git", "-C", str(HERE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def asv(*arguments: str) -> int:
    """Run asv with the configuration next to this file."""
    command = [sys.executable, "-m", "asv", *arguments, "--config", str(HERE / "asv.conf.json")]
    return subprocess.run(command, check=False).returncode


def wheel(commit: str) -> Path | None:
    """Return the wheel that asv has built of a commit."""
    return next((HERE / ".asv" / "env").glob(f"*/asv-build-cache/{commit}/*.whl"), None)


def build(commit: str) -> tuple[Path, str]:
    """Return a folder with the pyconv of a commit, and the Python to run it by."""
    if wheel(commit) is None:
        print(f"Building {commit[:8]}", flush=True)
        asv("machine", "--yes")
        asv("run", "--bench", "just-discover", f"{commit}^!")
    found = wheel(commit)
    if found is None:
        raise RuntimeError(f"asv did not build {commit}")
    folder = HERE / ".asv" / "trees" / commit
    if not folder.exists():
        with zipfile.ZipFile(found) as archive:
            archive.extractall(folder)
    environment = found.parents[2]
    return folder, str(environment / "bin" / "python")


# ---- benchmarks --------------------------------------------------------------------------------


def benchmarks() -> Iterator[str]:
    """Yield the names of all timed benchmarks, read from their sources."""
    for path in sorted((HERE / "benchmarks").glob("bench_*.py")):
        found = {n.name: n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}
        for name, node in found.items():
            bases = [found[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in found]
            params = [
                ast.literal_eval(line.value)
                for line in node.body
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "params"
            ]
            if name.startswith("_") or not params:
                continue
            functions = [
                f for c in (*bases, node) for f in c.body if isinstance(f, ast.FunctionDef)
            ]
            methods = [f.name for f in functions if f.name.startswith("time_")]
            for method in methods:
                for parameter in params[0]:
                    yield f"{path.stem}.{name}.{method}({parameter})"


class Process:
    """A build that takes its turns."""

    def __init__(self, python: str, folder: Path) -> None:
        environment = {
            **os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": "", "PYTHONHASHSEED": "0",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a benchmark failed, see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Times:
    """The turns of both builds: seconds of the fastest call of each."""

    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    @property
    def fastest(self) -> float:
        """The ratio of the fastest calls: above 1, the second commit is slower."""
        return min(self.after) / min(self.before)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each two turns that followed each other."""
        return [a / b for b, a in zip(self.before, self.after, strict=True)]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def least(self) -> float:
        """The lower end of the median's 99 % interval."""
        draw, ratios = random.Random(0), self.ratios
        medians = sorted(
            statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)
        )
        return medians[RESAMPLES // 200]

    def slower(self, threshold: float) -> bool:
        """Whether the second commit is slower."""
        return self.fastest > threshold and self.ratio > threshold and self.least > 1


def measure(
    before: tuple[str, Path], after: tuple[str, Path], names: Sequence[str], pairs: int
) -> dict[str, Times]:
    """Time benchmarks of two builds, each a Python and a folder, in pairs of processes."""
    times: dict[str, Times] = {}
    for pair in range(pairs):
        processes = [Process(*before), Process(*after)]
        try:
            for name in names:
                if any([p.ask("prepare", name=name) for p in processes]):  # noqa: C419 - of both
                    continue  # one of the commits does not have it
                found = times.setdefault(name, Times())
                for number in range(ROUNDS):
                    order = [0, 1] if (number + pair) % 2 else [1, 0]
                    taken = {i: processes[i].ask("turn", duration=TURN)["fastest"] for i in order}
                    found.before.append(taken[0])
                    found.after.append(taken[1])
        finally:
            for process in processes:
                process.stop()
    return times


def compare(
    before: tuple[str, Path], after: tuple[str, Path], names: Sequence[str], threshold: float
) -> tuple[dict[str, Times], list[str]]:
    """Return the times of benchmarks, and which are slower, having measured those again."""
    times = measure(before, after, names, PAIRS)
    suspects = [name for name, found in times.items() if found.slower(threshold)]
    if suspects:
        times |= measure(before, after, suspects, PAIRS * SURE)
    return times, [name for name in suspects if times[name].slower(threshold)]


# ---- instructions --------------------------------------------------------------------------------


def counts(commit: str, folder: Path, python: str, names: Sequence[str]) -> dict[str, int]:
    """Return instructions of calls; a commit's are kept, for they stay the same."""
    kept = HERE / ".asv" / "counts" / f"{commit}.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    missing = [name for name in names if name not in known]
    if missing:
        known |= _instructions.counts(missing, python, {"PYTHONPATH": str(folder)})
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(known))
    return {name: known[name] for name in names}


# ---- the command -------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--bench", default="", help="a regular expression; all by default")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--no-counts", action="store_true", help="do not count instructions")
    parser.add_argument("--continuous", action="store_true", help="run `asv continuous` first")
    parser.add_argument("--build", action="store_true", help="build, and measure nothing")
    given = parser.parse_args(arguments)
    wanted = re.compile(given.bench)
    names = [name for name in benchmarks() if wanted.search(name)]
    if not names:
        parser.error(f"no benchmark matches {given.bench!r}")

    # Both are looked up before anything is built, which takes minutes.
    before, after = (git("rev-parse", f"{n}^{{commit}}") for n in (given.before, given.after))
    folder_before, python = build(before)
    folder_after, _ = build(after)
    if given.build:
        return 0
    if given.continuous:
        options = ["--interleave-rounds", "--factor", str(given.threshold)]
        asv("continuous", *options, "--bench", given.bench or ".", before, after)

    print(f"{given.before} ({before[:8]}) and {given.after} ({after[:8]}); ratio: after / before")
    times, slower = compare(
        (python, folder_before), (python, folder_after), [CONTROL, *names], given.threshold
    )
    rows = [["", "before", "after", "fastest", "median", "99 % from"]]
    for name in sorted(times, key=lambda name: -times[name].fastest):
        found = times[name]
        rows.append([
            name, f"{min(found.before) * 1e3:.3f} ms", f"{min(found.after) * 1e3:.3f} ms",
            f"{found.fastest:.3f}", f"{found.ratio:.3f}", f"{found.least:.3f}",
        ])  # fmt: skip
    print(table(rows))

    if not given.no_counts and _instructions.available():
        kinds = {"time_call": "call", "time_plan": "plan", "time_all": "all"}
        chosen = list(dict.fromkeys(
            f"{kinds[method]}/{operator_of(cls)}"
            for cls, method in (name.partition("(")[0].split(".")[1:] for name in names)
            if method in kinds and operator_of(cls)
        ))  # fmt: skip
        was = counts(before, folder_before, python, chosen)
        now = counts(after, folder_after, python, chosen)
        rows = [["instructions", "before", "after", "ratio"]]
        for name in sorted(chosen, key=lambda name: -now[name] / was[name]):
            ratio = now[name] / was[name]
            rows.append([name, str(was[name]), str(now[name]), f"{ratio:.4f}"])
            if ratio > COUNTS_THRESHOLD:
                slower.append(f"instructions of {name}")
        print("\n" + table(rows))

    if CONTROL in slower:
        print("\nThe control is slower: the machine is too noisy for a verdict.")
        return 2
    print(f"\nslower by more than {given.threshold}: {', '.join(slower) or 'nothing'}")
    return 1 if slower else 0


def operator_of(cls: str) -> str:
    """Return the operator of a class of forward or backward benchmarks, "" of another."""
    match = re.fullmatch(r"(.+?)(Forward|Backward)", cls)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", match[1]).lower() if match else ""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # Python's own status would be that of a slower commit
        traceback.print_exc()
        sys.exit(2)

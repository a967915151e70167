"""Prove that `compare.py` sees slowdowns and leaves unchanged commits alone.

    python asv_bench/prove.py              # from a clean checkout
    python asv_bench/prove.py --times 2 --only lost_thread

In a clone below `asv_bench/.asv/`, each patch of `asv_bench/planted/` becomes a commit of a scratch
branch, and so does a change of no consequence ("unchanged"). Each of them is built, and compared
with the checkout's commit five times in a row by `compare.py`, which does not know which is which.
A table tells what was found. The exit status is 1 unless every planted slowdown was found each time
and the unchanged commit was never slower.

What is planted:

`unaligned_load`
    The micro-kernel loads each vector of inputs, and twice more from places beside it, half of
    which cross cache lines. (Vectors that merely cross them where they were aligned cost 4 to 7 %.)
`lost_thread`
    The transforms of Winograd's algorithm run on one thread less than they are given.
`packed_twice`
    Each tile of inputs is packed, and packed once more.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time

from compare import HERE
from compare import git as of_checkout

CLONE = HERE / ".asv" / "scratch"
BENCHMARKS = {
    "unaligned_load": r"StandardForward.time_plan|bench_forward.DilatedForward.time_plan",
    "lost_thread": r"TwoThreads.time_plan\((standard|dilated|depthwise/)",
    "packed_twice": r"bench_forward.Deformable.*plan|DepthwiseSeparableForward.time_plan",
}
"""Where the slowdown of a patch should show, and some others; what compiles most comes first."""

UNCHANGED = "|".join(BENCHMARKS.values())
FOUND = re.compile(r"^slower by more than \S+: (.*)$", re.MULTILINE)


def git(*arguments: str) -> str:
    """Run git in the clone; the same commits have the same hashes, and are not built again."""
    command = ["git", "-C", str(CLONE), *arguments]
    made = {"NAME": "scratch", "EMAIL": "scratch@example.invalid", "DATE": "1000000000 +0000"}
    by = {f"GIT_{who}_{key}": made[key] for who in ("AUTHOR", "COMMITTER") for key in made}
    environment = {**os.environ, **by}
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


def prepare(names: list[str]) -> None:
    """Make the clone and its scratch branches."""
    root = HERE.parent
    if not CLONE.exists():
        command = ["git", "clone", "--quiet", "--no-tags", str(root), str(CLONE)]
        subprocess.run(command, check=True)
        (CLONE / "asv_bench" / ".asv").symlink_to(HERE / ".asv")  # one environment for all
    head = of_checkout("rev-parse", "HEAD")
    git("fetch", "--quiet", "origin", head)
    for name in names:
        git("checkout", "--quiet", "--force", "-B", f"scratch/{name}", head)
        if name == "unchanged":
            with open(CLONE / "README.md", "a") as file:
                file.write("\n")
        else:
            git("apply", str(HERE / "planted" / f"{name}.patch"))
        git("commit", "--quiet", "--all", "--no-verify", "-m", f"Plant: {name}")
    git("checkout", "--quiet", "--force", "--detach", head)


def compare(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Compare the commit of the checkout with a branch."""
    pattern = BENCHMARKS.get(name, UNCHANGED)
    command = [
        sys.executable, str(CLONE / "asv_bench" / "compare.py"), "HEAD", f"scratch/{name}",
        "--bench", pattern, *options,
    ]  # fmt: skip
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)


def verdict_of(status: int, found: str) -> str:
    """Return what a comparison came to; one that ended early has found nothing, not something."""
    if status == 0 and found == "nothing":
        return "quiet"
    return "caught" if status == 1 and found not in ("", "nothing") else "failed"


def main() -> int:
    """Run the proof."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", choices=[*BENCHMARKS, "unchanged"], action="append")
    parser.add_argument("--verbose", action="store_true", help="show what compare.py prints")
    parser.add_argument("--no-counts", action="store_true", help="times alone")
    parser.add_argument("--lock", help="a file to hold a lock of during each comparison")
    given = parser.parse_args()
    names = given.only or [*BENCHMARKS, "unchanged"]
    options = ["--no-counts"] if given.no_counts else []
    prepare(names)
    for name in reversed(names):  # last what compiles most, which is then compiled once
        compare(name, "--build").check_returncode()
    right, rows = True, []
    for name in names:
        for number in range(1, given.times + 1):
            begin = time.monotonic()
            done = locked(given.lock, name, options)
            found = FOUND.search(done.stdout)
            verdict = verdict_of(done.returncode, found[1] if found else "")
            right &= verdict == ("quiet" if name == "unchanged" else "caught")
            row = f"{name:15} {number}  {verdict:9} {time.monotonic() - begin:4.0f} s  "
            rows.append(row + (found[1] if found else ""))
            print((done.stdout if given.verbose else "") + rows[-1], flush=True)
    if given.verbose:
        print("\n" + "\n".join(rows))
    return 0 if right else 1


def locked(path: str | None, name: str, options: list[str]) -> subprocess.CompletedProcess[str]:
    """Compare while holding a lock that others who time things hold."""
    if path is None:
        return compare(name, *options)
    import fcntl

    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return compare(name, *options)


if __name__ == "__main__":
    sys.exit(main())

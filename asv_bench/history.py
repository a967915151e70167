"""Run the benchmarks quickly on the last commits, and make asv's pages of them.

    python asv_bench/history.py            # ten commits of main
    python asv_bench/history.py 25 --bench "Forward|Backward"

asv builds each commit in its environment; `build_wheel.py` compiles what differs from the commit
before. A benchmark runs for a tenth of a second: enough to see steps, not percents.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from compare import HERE, asv, git

QUICK = ["rounds=1", "repeat=5", "sample_time=0.005", "warmup_time=0.01"]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs="?", type=int, default=10)
    parser.add_argument("--bench", default=".", help="a regular expression")
    given = parser.parse_args()
    commits = git("rev-list", "--first-parent", f"--max-count={given.commits}", "main")
    asv("machine", "--yes")
    attributes = [part for text in QUICK for part in ("--attribute", text)]
    status = subprocess.run(
        [sys.executable, "-m", "asv", "run", "HASHFILE:-", "--skip-existing-successful",
         "--config", str(HERE / "asv.conf.json"), "--bench", given.bench, *attributes],
        input="\n".join(reversed(commits.split())), text=True, check=False,
    ).returncode  # fmt: skip
    return asv("publish") or status


if __name__ == "__main__":
    sys.exit(main())

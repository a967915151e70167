"""Build the wheel of a commit for asv, compiling only what differs from the commit built before it.

    python build_wheel.py CHECKOUT TREE WHEELS

asv checks every commit out afresh, with new file times, so that all of it would be compiled, for
minutes. TREE is kept instead: files whose contents have changed are copied to it, others are left
alone with their times and what has been compiled from them. What is built is what CHECKOUT has.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

KERNELS = Path("pyconv", "_kernels")


def files(root: Path, *without: str) -> set[Path]:
    """Return the files below `root`, relative to it, but for some folders at the top."""
    found = {path.relative_to(root) for path in root.rglob("*") if not path.is_dir()}
    return {path for path in found if path.parts[0] not in without}


def mirror(checkout: Path, tree: Path) -> None:
    """Make the sources in `tree` those of `checkout`."""
    tree.mkdir(parents=True, exist_ok=True)
    wanted = files(checkout, ".git")
    for path in files(tree, "build") - wanted:
        (tree / path).unlink()
    for path in wanted:
        new, old = checkout / path, tree / path
        if not old.exists() or not filecmp.cmp(new, old, shallow=False):
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(new, old)


def forget_what_is_gone(tree: Path) -> None:
    """Keep of what setuptools has collected for a wheel only the modules compiled from sources."""
    sources = {path.stem for path in (tree / KERNELS).glob("*.pyx")}
    for library in (tree / "build").glob("lib*"):
        for path in files(library):
            compiled = path.suffix == ".so" and path.name.partition(".")[0] in sources
            if not compiled or path.parent != KERNELS:
                (library / path).unlink()


def main(checkout: str, tree: str, wheels: str) -> None:
    """Build the wheel."""
    root = Path(tree)
    mirror(Path(checkout), root)
    forget_what_is_gone(root)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", wheels, str(root)], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Check what the sdist and the wheel in a folder contain: python .ci/check_dist.py DIST."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

IN_WHEEL = {".py", ".pyi", ".pxd", ".h", ".so", ".typed", ".in"}
NEEDED = {
    "pyconv/__init__.py", "pyconv/py.typed", "pyconv/operators/__init__.py", "pyconv/kernels.pxd",
}  # fmt: skip


def main(folder: Path) -> list[str]:
    """Return every complaint."""
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    in_wheel = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    with tarfile.open(sdist) as archive:
        in_sdist = {
            name.partition("/")[2] for name in archive.getnames() if not name.endswith(".egg-info")
        }
    print(f"{wheel.name}: {len(in_wheel)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    print(f"{sdist.name}: {len(in_sdist)} files, {sdist.stat().st_size / 1e6:.1f} MB")

    problems = []
    for path in in_wheel:
        top = path.parts[0]
        if top == "pyconv" and path.suffix not in IN_WHEEL:
            problems.append(f"the wheel carries {path}")
        elif top != "pyconv" and not top.endswith(".dist-info"):
            problems.append(f"the wheel installs {path}, outside pyconv")
    names = {str(path) for path in in_wheel}
    problems += [f"the wheel lacks {name}" for name in sorted(NEEDED - names)]

    tracked = subprocess.check_output(["git", "ls-files"], text=True).splitlines()
    for name in tracked:
        wanted = ("pyconv/", "tests/", "docs/", "asv_bench/", "examples/")
        if name.startswith(wanted) and name not in in_sdist:
            problems.append(f"the sdist lacks {name}")
        if name.startswith("pyconv/") and name.endswith(".pyx"):
            stem = name.removesuffix(".pyx")
            if not any(n.startswith(f"{stem}.") and n.endswith(".so") for n in names):
                problems.append(f"the wheel lacks the compiled {stem}")
    problems += [f"the sdist carries the build leftover {n}" for n in in_sdist if "build/" in n]
    return problems


if __name__ == "__main__":
    found = main(Path(sys.argv[1]))
    print("\n".join(found) or "contents as they should be")
    sys.exit(1 if found else 0)

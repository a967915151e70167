"""Write a package with an operator of its own, ready to install.

NAME is that of the distribution and of the new directory, such as pyconv-mirrored. The package has
an operator that works (a standard convolution with kernels averaged with their mirror images), the
tests of pyconv's contract, and benchmarks: change the operator, keep the rest.
"""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import os
import re
import shutil
import string
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyconv
from pyconv.cli.output import CommandError, UsageError

_TEMPLATES = Path(__file__).parents[1] / "templates"

# Files of the package by those of the templates.
_FILES = {
    "plugin/pyproject.toml": "pyproject.toml",
    "plugin/README.md": "README.md",
    "plugin/__init__.py": "src/$module/__init__.py",
    "plugin/test_operator.py": "tests/test_$operator.py",
    "plugin/asv.conf.json": "asv_bench/asv.conf.json",
    "plugin/benchmarks.py": "asv_bench/benchmarks/__init__.py",
    "plugin/bench_operator.py": "asv_bench/benchmarks/bench_$operator.py",
}
# These take the place of others, or come in addition.
_CYTHON = {
    "cython/pyproject.toml": "pyproject.toml",
    "cython/README.md": "README.md",
    "cython/setup.py": "setup.py",
    "cython/__init__.py": "src/$module/__init__.py",
    "cython/_kernels.pyx": "src/$module/_kernels.pyx",
}

# Names of distributions, as PEP 508 has them.
_DISTRIBUTION = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.ASCII | re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pyconv new-plugin``."""
    parser.add_argument("name", metavar="NAME", help="the distribution, such as pyconv-mirrored")
    parser.add_argument(
        "--operator", metavar="NAME", help='the operator (default: NAME without "pyconv-")'
    )
    parser.add_argument(
        "--cython", action="store_true", help="with a compiled inner loop, in Cython"
    )
    parser.add_argument(
        "-C", "--directory", type=Path, default=Path(), metavar="DIR",
        help="where to put the new directory (default: here)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check the names, write the package, say what comes next."""
    names = _names(args.name, args.operator)
    target = args.directory / args.name
    if os.path.lexists(target):
        raise CommandError(f"{target} exists already; nothing has been written")
    if not args.directory.is_dir():
        raise CommandError(f"{args.directory}: no such directory")
    contents = _contents(names, cython=args.cython)
    _write(target, contents)
    print(f"{target}{os.sep}")
    for file in sorted(contents):
        print(f"  {file}")
    # With a separator, or pip would look for a project of that name.
    path = target if target.is_absolute() else os.path.join(os.curdir, target)
    print(
        f'\nnext: pip install "{path}[test]"\n'
        f"      pyconv check {names['operator']}\n"
        f"      cd {target} && pytest"
    )
    return 0


def _names(distribution: str, operator: str | None) -> dict[str, str]:
    """Return what the templates have to fill in, checked."""
    if not _DISTRIBUTION.fullmatch(distribution):
        raise UsageError(
            "new-plugin: NAME must be that of a distribution: ASCII letters, digits, and between "
            f"them -, _ and .; got {distribution!r}"
        )
    module = re.sub(r"[-_.]+", "_", distribution).lower()
    _check_identifier(f"NAME gives the module {module!r}, which", module)
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise UsageError(
            f"new-plugin: NAME gives the module {module!r}, which Python has already: "
            f"choose another, such as pyconv-{distribution}"
        )
    if operator is None:
        operator = module.removeprefix("pyconv_")
    _check_identifier(f"the operator's name, {operator!r},", operator)
    if _is_taken(operator):
        raise UsageError(
            f"new-plugin: there is an operator called {operator!r} already: choose another name"
        )
    parts = (part for part in operator.split("_") if part)
    title = "".join(part[0].upper() + part[1:] for part in parts)
    return {
        "distribution": distribution,
        "module": module,
        "operator": operator,
        "Operator": title,
    }


def _check_identifier(what: str, name: str) -> None:
    if not (name.isascii() and name.isidentifier() and name.strip("_")) or keyword.iskeyword(name):
        raise UsageError(
            f"new-plugin: {what} must be a Python identifier: letters, digits and _, no digit "
            "first, and no keyword"
        )


def _is_taken(operator: str) -> bool:
    try:
        pyconv.get(operator)
    except pyconv.UnknownOperatorError:
        return False
    except pyconv.PluginError:  # offered by a package that is broken, or by several
        return True
    return True


def _contents(names: Mapping[str, str], *, cython: bool) -> dict[str, str]:
    """Return the text of each file by its path in the package."""
    templates = {target: source for source, target in _FILES.items()}
    if cython:
        templates.update({target: source for source, target in _CYTHON.items()})
    filled = {}
    for target, source in templates.items():
        text = (_TEMPLATES / f"{source}.in").read_text(encoding="utf-8")
        filled[string.Template(target).substitute(names)] = string.Template(text).substitute(names)
    return filled


def _write(target: Path, contents: Mapping[str, str]) -> None:
    """Write all files or none: they get their place when all of them are there."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, text in contents.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        folder.chmod(0o777 & ~_umask())  # mkdtemp's own is for nobody else
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

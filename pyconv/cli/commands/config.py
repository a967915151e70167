"""Show how pyconv was built and what it has chosen on this machine."""

from __future__ import annotations

import argparse

import pyconv
from pyconv.cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pyconv config``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print version, compiler, instruction sets, OpenMP runtime and threads."""
    if args.json:
        print_json(pyconv.show_config("dicts"))
    else:
        pyconv.show_config()
    return 0

"""List every operator, and where it comes from."""

from __future__ import annotations

import argparse

import pyconv
from pyconv.cli.operators import FIELDS, origin
from pyconv.cli.output import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pyconv list``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the registry, what cannot be used included."""
    infos = list(pyconv.available().values())
    if args.json:
        print_json([{field: getattr(info, field) for field in FIELDS} for info in infos])
        return 0
    unusable = {i: "red" for i, info in enumerate(infos) if info.status != "ok"}
    print_table(
        ["operator", "aliases", "comes from", "summary"],
        [
            [
                info.name,
                ", ".join(info.aliases),
                origin(info),
                info.summary if info.status == "ok" else f"{info.status}: {info.error}",
            ]
            for info in infos
        ],
        styles=unusable,
    )
    return 0

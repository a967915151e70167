"""Check that operators keep pyconv's contract.

Runs pyconv.testing.OperatorSuite: shapes, dtypes, values, gradients, the same bits for any number
of threads, batch and strides, odd inputs, error messages. A failure names the smallest case that
fails. An operator says by its attribute "capabilities" what it cannot do; those checks are skipped.
The exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyconv
from pyconv.cli.output import UsageError, one_line, print_heading, print_json, print_table, progress

if TYPE_CHECKING:
    from pyconv.operator import Operator
    from pyconv.testing import CheckResult

_STATUSES = ("passed", "failed", "expected", "skipped")
_STYLES = {"failed": "red", "expected": "yellow", "skipped": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pyconv check``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="operators, by name or alias")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CHECK[,CHECK]",
        help="only these checks; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--suite", metavar="WHERE:CLASS",
        help="a suite of your own instead, in a module or a file: tests/test_mine.py:TestMine",
    )  # fmt: skip
    parser.add_argument("-v", "--verbose", action="store_true", help="list every check")
    parser.add_argument("--list", action="store_true", help="list the checks and stop")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the checks, print what came of them."""
    suite = _suite(args.suite)
    if args.list:
        _list(suite, args.json)
        return 0
    if not args.names:
        raise UsageError("check: NAME is missing; pyconv list shows the operators")
    wanted = _checks(suite, args.only)
    operators = list(dict.fromkeys(pyconv.get(name) for name in args.names))
    results = _results(operators, suite, wanted)
    if args.json:
        print_json([_as_json(operator, found) for operator, found in results])
    else:
        _print(results, args.verbose)
    return 1 if any(r.status == "failed" for _, found in results for r in found) else 0


def _suite(where: str | None) -> Any:
    """Return the class of checks."""
    from pyconv.testing import OperatorSuite

    if where is None:
        return OperatorSuite
    place, _, name = where.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        suite = getattr(module, name)
    except Exception as error:
        raise UsageError(
            f"check: --suite: {where!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(suite, type) and issubclass(suite, OperatorSuite)):
        raise UsageError(f"check: --suite: {where!r} is no subclass of OperatorSuite")
    return suite


def _checks(suite: Any, lists: list[str]) -> list[str]:
    """Return the names of the checks to run."""
    from pyconv.testing._check import check_names

    wanted = [name.strip() for names in lists for name in names.split(",")]
    try:
        check_names("check", suite.checks, wanted, None)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return list(dict.fromkeys(wanted)) or list(suite.checks)


def _list(suite: Any, as_json: bool) -> None:
    if as_json:
        print_json(dict(suite.checks))
        return
    rows = [
        [name, ", ".join(sorted(getattr(suite, f"test_{name}").needs)), reason]
        for name, reason in suite.checks.items()
    ]
    print_table(["check", "needs", "what it asks for"], rows)


def _results(
    operators: list[Operator], suite: Any, wanted: list[str]
) -> list[tuple[Operator, list[CheckResult]]]:
    from pyconv.testing import iter_checks

    results = []
    with progress(len(operators) * len(wanted)) as step:
        for operator in operators:
            running = iter_checks(operator, suite=suite, checks=wanted)
            found = []
            for name in wanted:
                step(f"{operator.name}: {name}")
                found.append(next(running))
            results.append((operator, found))
    return results


def _as_json(operator: Operator, found: list[CheckResult]) -> dict[str, Any]:
    counts = Counter(result.status for result in found)
    return {
        "operator": operator.name,
        **{status: counts[status] for status in _STATUSES},
        "seconds": sum(result.seconds for result in found),
        "checks": [result.to_dict() for result in found],
    }


def _print(results: list[tuple[Operator, list[CheckResult]]], verbose: bool) -> None:
    several = len(results) > 1
    for operator, found in results if verbose else ():
        if several:
            print_heading(operator.name)
        rows = [[r.name, r.status, f"{r.seconds:.2f}", r.reason] for r in found]
        styles = {i: _STYLES[r.status] for i, r in enumerate(found) if r.status in _STYLES}
        columns = ["check", "status", "s", "what it asks for"]
        print_table(columns, rows, right=["s"], styles=styles)
    if verbose:
        print()
    rows, styles = [], {}
    for i, (operator, found) in enumerate(results):
        counts = Counter(result.status for result in found)
        if counts["failed"]:
            styles[i] = _STYLES["failed"]
        seconds = f"{sum(result.seconds for result in found):.1f}"
        rows.append([operator.name, *(str(counts[status]) for status in _STATUSES), seconds])
    columns = ["operator", *_STATUSES, "s"]
    print_table(columns, rows, right=columns[1:], styles=styles)
    for _, found in results:
        for result in found:
            # One line each for what has not been looked at, the whole story for a failure.
            if result.status == "failed":
                print(f"\n{result.message}")
            elif result.status in ("expected", "skipped") and not verbose:
                print(f"\n{result.status}: {result.name}: {one_line(result.message)}")
    sys.stdout.flush()

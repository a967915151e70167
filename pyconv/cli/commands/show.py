"""Show what one operator takes, does and costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import pyconv
from pyconv.cli.operators import arguments, documented, origin, parameters, signature
from pyconv.cli.output import print_heading, print_json, print_table

if TYPE_CHECKING:
    from pyconv.operator import Case, Operator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pyconv show``."""
    parser.add_argument("name", metavar="NAME", help="the operator, by name or alias")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print an operator's summary, signature, parameters, arrays, algorithms and cases."""
    op = pyconv.get(args.name)
    facts = _facts(op)
    if args.json:
        print_json(facts)
    else:
        _print(op, facts)
    return 0


def _facts(op: Operator) -> dict[str, Any]:
    docs = documented(op)
    info = next((i for i in pyconv.available().values() if _is(op, i.name)), None)
    return {
        "name": op.name,
        "summary": op.summary,
        "aliases": list(op.aliases),
        "url": op.url,
        "api_version": op.api_version,
        "from": None if info is None else origin(info),
        "signature": signature(op),
        "arrays": [
            {"name": name, "optional": name in op.optional, **_documented(docs, name)}
            for name in op.array_names
        ],
        "parameters": [
            {
                "name": p.name,
                "required": p.default is p.empty,
                "default": None if p.default is p.empty else p.default,
                **_documented(docs, p.name),
            }
            for p in parameters(op)
        ],
        "algorithms": list(op.algorithms),
        "cases": [_case(op, case) for case in op.cases()],
    }


def _documented(docs: dict[str, tuple[str, str]], name: str) -> dict[str, str]:
    kind, meaning = docs.get(name, ("", ""))
    return {"type": kind, "meaning": meaning}


def _is(op: Operator, name: str) -> bool:
    try:
        return pyconv.get(name) is op
    except (LookupError, pyconv.PluginError):
        return False


def _case(op: Operator, case: Case) -> dict[str, Any]:
    positional, keyword = arguments(op, case.shapes)
    cost = op.cost(*positional, **keyword, **case.params)
    return {
        "name": case.name,
        "shapes": dict(case.shapes),
        "params": dict(case.params),
        "output_shape": op.output_shape(*positional, **keyword, **case.params),
        "macs": cost.macs,
        "macs_valid": cost.macs_valid,
        "parameters": cost.parameters,
        "bytes_moved": cost.bytes_moved,
    }


def _print(op: Operator, facts: dict[str, Any]) -> None:
    print(f"{op.name}: {op.summary}")
    for what, text in (
        ("aliases", ", ".join(op.aliases)),
        ("from", facts["from"]),
        ("algorithms", ", ".join(op.algorithms)),
        ("more", op.url),
    ):
        if text:
            print(f"  {what:<11} {text}")
    print_heading("Signature")
    print(facts["signature"])
    print_heading("Arrays")
    print_table(
        ["array", "type", "meaning"],
        [[array["name"], array["type"], array["meaning"]] for array in facts["arrays"]],
    )
    print_heading("Parameters")
    print_table(
        ["parameter", "default", "meaning"],
        [
            [p["name"], "required" if p["required"] else repr(p["default"]), p["meaning"]]
            for p in facts["parameters"]
        ],
    )
    print_heading("Example cases")
    print_table(
        ["case", "arrays", "parameters", "output", "multiply-adds", "on padding", "bytes"],
        [
            [
                case["name"],
                ", ".join(f"{name} {shape}" for name, shape in case["shapes"].items() if shape),
                ", ".join(f"{name}={value!r}" for name, value in case["params"].items()),
                case["output_shape"],
                f"{case['macs']:,}",
                f"{case['macs'] - case['macs_valid']:,}",
                f"{case['bytes_moved']:,}",
            ]
            for case in facts["cases"]
        ],
        right=["multiply-adds", "on padding", "bytes"],
    )

"""Time layers of real networks against the machine's limits and other libraries.

Each layer is run by a plan and by a stateless call. "of limit" is the time that the layer takes at
best, at the measured multiply-add peak or memory bandwidth, as a share of the plan's. With --peers
every other library that is installed runs the same layers on the same arrays, in a process of its
own; "ratio" is the best one's time over the plan's. All results are compared: a wrong one makes
the exit status 1. With --backward it is gradients that are timed, of the input and of each array of
weights. With --regret it is all algorithms of pyconv that are timed, on random layers: the regret
is the time of the one chosen over that of the fastest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pyconv
from pyconv.cli.output import CommandError, UsageError, one_line, print_table, progress

PEERS = ("torch", "torch_cl", "ort", "openvino", "ncnn")
DIFFERENTIABLE = ("torch", "torch_cl")  # those that compute gradients
FILTERS = ("ndimage", "oaconvolve")  # SciPy's, for one-channel images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pyconv bench``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="operators, by name or alias")
    parser.add_argument(
        "--class", action="append", default=[], dest="groups", metavar="CLASS",
        help="only layers of this class, see --list; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--layers", default="", metavar="PATTERN",
        help="only layers with this in their name; a glob if it has one of *?[",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=("float32", "float64"), help="all layers in this dtype")
    parser.add_argument(
        "--backward", action="store_true", help="gradients instead of the layers themselves"
    )
    parser.add_argument("--list", action="store_true", help="list the layers and stop")
    parser.add_argument("--peers", action="store_true", help="compare with other libraries")
    parser.add_argument(
        "--python", metavar="EXE", help="the Python that runs the other libraries (default: this)"
    )
    parser.add_argument(
        "--threads", type=_counts, metavar="N[,N]", help="thread counts (default: all CPUs)"
    )
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--time", type=_seconds, default=0.1, metavar="SECONDS",
        help="how long a layer is repeated in each round (default: 0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--random", type=_positive, metavar="N",
        help="N random layers instead, and a list of the lowest ratios",
    )  # fmt: skip
    parser.add_argument(
        "--regret", type=_positive, metavar="N",
        help="time the algorithm chosen beside the other ones, on N random layers",
    )  # fmt: skip
    parser.add_argument("--seed", type=_natural, default=0, metavar="S", help="which random layers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with charts")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0; got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1; got {text!r}")
    return int(text)


def _counts(text: str) -> list[int]:
    return list(dict.fromkeys(_positive(part.strip()) for part in text.split(",")))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds > 0; got {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """List the layers, or measure them and print, and write, the report."""
    if args.python and not args.peers:
        raise UsageError("bench: --python runs other libraries and goes with --peers")
    python = shutil.which(args.python) if args.python else sys.executable
    if python is None:
        raise UsageError(f"bench: --python: no program {args.python!r}")
    for file in (args.json, args.html):
        if file is not None and not file.parent.is_dir():
            raise CommandError(f"{file}: no such directory")
    if args.regret:
        return _regret(args)
    layers = _layers(args)
    if not layers:
        raise UsageError("bench: no layer is all of what was asked for; --list shows them")
    if args.list:
        _list(layers)
        return 0
    report = _measured(args, layers, python)

    from pyconv.bench.report_html import render
    from pyconv.bench.report_text import print_report

    print_report(report, worst=args.random is not None)
    if args.json:
        args.json.write_text(json.dumps(report.as_json(), indent=1, allow_nan=False))
    if args.html:
        args.html.write_text(render(report), encoding="utf-8")
    for result, name in report.troubles():
        timing = result.timings[name]
        _warn(f"{name} {timing.status} on {result.layer.name}: {timing.note}")
    wrong = report.wrong()
    for result, name in wrong:
        timing = result.timings[name]
        _warn(f"{name} is {timing.status} on {result.layer.name}: {timing.note}")
    return 1 if wrong else 0


def _warn(text: str) -> None:
    print(f"pyconv: {one_line(text)}", file=sys.stderr)


def _layers(args: argparse.Namespace) -> list[Any]:
    from pyconv.bench import gradients
    from pyconv.bench.layers import CLASSES, LAYERS, cases, in_dtype, operators, select
    from pyconv.bench.random_layers import RANDOM, random_layers

    ops = [pyconv.get(name) for name in args.names]
    known = list(RANDOM if args.random else CLASSES)
    sources: dict[str, tuple[str, ...]] = {key: (key,) for key in known}
    if args.backward:  # by class, the layers that the gradients are those of
        sources = {
            key: groups for key, groups in gradients.SOURCES.items() if set(groups) <= set(known)
        }
    for key in args.groups:
        if key not in sources:
            raise UsageError(f"bench: --class: must be one of {', '.join(sources)}; got {key!r}")
    layers = list(LAYERS)
    if args.random:
        wanted = {group for key in args.groups or sources for group in sources[key]}
        groups = [key for key in known if key in wanted]
        layers = random_layers(args.random, args.seed, groups)
    else:
        layers += [layer for op in ops if op.name not in operators() for layer in cases(op)]
    if args.dtype:
        layers = in_dtype(layers, args.dtype)
    if args.backward:
        layers = gradients.of(layers)
    return select(layers, {op.name for op in ops}, args.groups, args.layers)


def _regret(args: argparse.Namespace) -> int:
    """Time all algorithms on random layers."""
    from pyconv.bench import regret
    from pyconv.bench.layers import select
    from pyconv.bench.random_layers import RANDOM
    from pyconv.bench.report_text import print_regrets
    from pyconv.bench.runner import Settings

    for option in ("backward", "peers", "random", "html", "layers", "dtype"):
        if getattr(args, option):
            raise UsageError(f"bench: --regret does not go with --{option}")
    known = [key for key in RANDOM if key != "direct"]
    for key in args.groups:
        if key not in known:
            raise UsageError(f"bench: --class: must be one of {', '.join(known)}; got {key!r}")
    names = {pyconv.get(name).name for name in args.names}
    layers = regret.draw(
        args.regret, args.seed, args.groups, lambda layer: bool(select([layer], names))
    )
    if not layers:
        raise UsageError("bench: --regret: no layer has several algorithms to choose from")
    if args.list:
        _list(layers)
        return 0
    counts, settings = _thread_counts(args), Settings(args.rounds, args.time)
    found = []
    with progress(len(counts) * len(layers)) as step:
        for threads in counts:
            for layer in layers:
                step(layer.name)
                found.append(regret.measure(layer, threads, settings))
    print_regrets(found)
    if args.json:
        results = [regret.as_json(each) for each in found]
        everything = {**_facts(args, counts), "results": results}
        args.json.write_text(json.dumps(everything, indent=1, allow_nan=False))
    return 0


def _thread_counts(args: argparse.Namespace) -> list[int]:
    return args.threads or [pyconv.get_num_threads()]


def _list(layers: list[Any]) -> None:
    print_table(
        ["layer", "class", "which is"],
        [[layer.name, layer.group, layer] for layer in layers],
    )


def _measured(args: argparse.Namespace, layers: list[Any], python: str) -> Any:
    """Run every thread count, and return the report."""
    from pyconv.bench import machine
    from pyconv.bench.results import OURS, Report
    from pyconv.bench.runner import Runner, Settings

    counts = _thread_counts(args)
    settings = Settings(args.rounds, args.time)
    limits = machine.limits(counts, sorted({layer.dtype for layer in layers}))
    report = Report(_facts(args, counts), [vars(limit) for limit in limits.values()], {})
    names = [*OURS]
    if args.peers:
        names += DIFFERENTIABLE if args.backward else PEERS
        names += (
            FILTERS if not args.backward and any(layer.group == "image" for layer in layers) else ()
        )
    with progress(len(counts) * len(layers)) as step:
        for threads in counts:
            with Runner(names, threads, settings, python) as runner:
                _check_present(runner.absent, names)
                report.versions = runner.versions
                own = {dtype: limits[count, dtype] for count, dtype in limits if count == threads}
                report.results += runner.run(layers, own, step)
    return report


def _check_present(absent: dict[str, str], names: list[str]) -> None:
    from pyconv.bench.results import OURS

    for name in OURS:
        if name in absent:
            raise CommandError(f"pyconv cannot be run in a process of its own: {absent[name]}")
    peers = set(names) & set(PEERS)
    if peers and absent.keys() >= peers:
        raise CommandError(
            "no other library is there to compare with: install some of torch, onnxruntime with "
            "onnx, openvino, ncnn, scipy, or name a Python that has them by --python"
        )


def _facts(args: argparse.Namespace, counts: list[int]) -> dict[str, Any]:
    from pyconv.bench import machine

    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine.describe(),
        "pyconv": pyconv.show_config("dicts"),
        "settings": {
            "threads": counts,
            "backward": args.backward,
            "rounds": args.rounds,
            "seconds": args.time,
            "random": args.random,
            "regret": args.regret,
            "seed": args.seed if args.random or args.regret else None,
        },
    }

"""Run every operator on a photograph, check the results and draw them.

Each operator is applied to the whole photo and timed; on a crop, its result is compared with the
operator's own definition, evaluated in float64. Operators of other packages are run on their
example cases. The photo comes with matplotlib: pip install "pyconv-ops[demo]".

"error/bound" is the largest error as a share of the bound that pyconv promises,
32 u max(conv(|x|, |w|)), where u is the unit roundoff. Above 100 % the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyconv
from pyconv.cli.demo.measure import Measurement, measure
from pyconv.cli.demo.scenes import SCENES, STAGES, case_calls, crop, read_photo
from pyconv.cli.operators import AnyArray, Call, origin
from pyconv.cli.output import (
    CommandError,
    UsageError,
    one_line,
    print_json,
    print_table,
    progress,
    require,
)

if TYPE_CHECKING:
    from pyconv.registry import OperatorInfo


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a call that has been measured, or why there is none.

    Attributes
    ----------
    operator, note, origin : str
        The operator, which of its calls this is, and where the operator comes from.
    status : {"ok", "wrong", "failed", "broken"}
        Whether the result is right, the call raised an error, or the operator does not load.
    measured : Measurement or None
        The results of the first two.
    failure : str
        The error of the others.
    """

    operator: str
    note: str
    origin: str
    status: str
    measured: Measurement | None = None
    failure: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pyconv demo``."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("pyconv-demo.png"),
        metavar="FILE",
        help="the picture (default: pyconv-demo.png)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads to use")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1; got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Measure and check everything, draw the picture, print the table."""
    require("matplotlib", "demo", "the demo")
    from pyconv.cli.demo.sheet import FORMATS, draw

    if args.output.suffix.lower() not in FORMATS:
        raise UsageError(f"demo: {args.output}: a picture is one of {', '.join(FORMATS)}")
    if not args.output.parent.is_dir():
        raise CommandError(f"{args.output}: no such directory")
    with pyconv.threads(args.threads) if args.threads else contextlib.nullcontext():
        threads = pyconv.get_num_threads()
        rows, pictures = _run_all()
    draw(args.output, pictures, _footer(rows, threads))
    if args.json:
        results = [_flat(row) for row in rows]
        print_json({"picture": str(args.output), "threads": threads, "results": results})
    else:
        _print(rows)
        print(f"\nthreads: {threads}\npicture: {args.output}")
    return 1 if any(row.status in ("wrong", "failed") for row in rows) else 0


def _run_all() -> tuple[list[Row], dict[str, AnyArray]]:
    """Return the table, and the results to draw by the key of their scene."""
    photo = read_photo()
    part = crop(photo)
    infos = pyconv.available()
    others = [name for name in infos if name not in {scene.operator for scene in SCENES}]
    pictures: dict[str, AnyArray] = {"photo": photo}
    rows = []
    with progress(len(SCENES) + len(others)) as step:
        for scene in SCENES:
            step(scene.operator)
            call = partial(scene.call, photo), partial(scene.call, part)
            y, row = _measured(infos[scene.operator], scene.note, *call)
            rows.append(row)
            if y is not None:
                pictures[scene.key] = y
        for name in others:
            step(name)
            rows += _run_cases(infos[name])
    for key, stage in STAGES.items():
        with contextlib.suppress(Exception):  # the table has the operator's failure already
            pictures[key] = stage.call(photo)()
    return rows, pictures


def _run_cases(info: OperatorInfo) -> list[Row]:
    """Run an operator without a scene, such as a plugin, on its own examples."""
    if info.status != "ok":
        return [Row(info.name, "", origin(info), "broken", failure=one_line(info.error))]
    try:
        calls = case_calls(pyconv.get(info.name))
    except Exception as error:
        return [_failed(info, "cases()", error)]
    return [
        _measured(info, f"case {name}", lambda call=call: call, lambda call=call: call)[1]  # type: ignore[misc]
        for name, call in calls
    ]


def _measured(
    info: OperatorInfo, note: str, call: Callable[[], Call], checked: Callable[[], Call]
) -> tuple[AnyArray | None, Row]:
    try:
        y, measured = measure(call(), checked())
    except Exception as error:  # whatever a plugin raises, the others have their turn
        return None, _failed(info, note, error)
    status = "ok" if measured.right else "wrong"
    return y, Row(info.name, note, origin(info), status, measured)


def _failed(info: OperatorInfo, note: str, error: Exception) -> Row:
    failure = f"{type(error).__name__}: {one_line(error)}"
    return Row(info.name, note, origin(info), "failed", failure=failure)


def _print(rows: list[Row]) -> None:
    table = []
    for row in rows:
        name = f"{row.operator} ({row.note})" if row.note else row.operator
        m = row.measured
        if m is None:
            table.append([name, row.origin, f"{row.status}: {row.failure}", *[None] * 4])
        else:
            shape = "x".join(map(str, m.output_shape))
            numbers = [f"{m.seconds * 1e3:.2f}", f"{m.gflops:.1f}", f"{m.error:.1%}"]
            table.append([name, row.origin, m.algorithm, shape, *numbers])
    print_table(
        ["operator", "comes from", "algorithm", "output", "ms", "GFLOP/s", "error/bound"],
        table,
        right=["output", "ms", "GFLOP/s", "error/bound"],
        styles={i: "red" for i, row in enumerate(rows) if row.status != "ok"},
    )


def _flat(row: Row) -> dict[str, Any]:
    flat = dataclasses.asdict(row)
    measured = flat.pop("measured") or {}
    return flat | measured


def _footer(rows: list[Row], threads: int) -> str:
    """Return the line under the picture: what it was made with, and what it does not show."""
    drawn = {scene.operator for scene in SCENES}
    others = dict.fromkeys(
        row.operator for row in rows if row.measured and row.operator not in drawn
    )
    shown = f" Also run, on their own examples: {', '.join(others)}." if others else ""
    return f"pyconv {pyconv.__version__}, {threads} thread{'s' * (threads != 1)}.{shown}"

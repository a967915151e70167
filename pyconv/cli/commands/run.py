"""Apply an operator to an image file.

  pyconv run standard photo.png --kernel sobel-x -o edges.png
  pyconv run dilated photo.png --dilation 2,3 --padding same -o wide.png

Options that are not listed below are parameters of the operator (see `pyconv show NAME`), with
values as in Python: --stride 2, --dilation 2,3, --padding "((1, 2), (0, 0))", --flip True. The
operator checks them. Padding is "same" unless given.

The image's values are divided by 255 (65535 for 16-bit grey): the operator sees 0 to 1. Alpha is
not filtered; it is resized to the result. A result of one channel is written as grey, of three as
colour, and 16-bit grey stays so in PNG and TIFF; a file called .npy gets any result as it is,
unscaled, with shape (C, H, W).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pyconv
from pyconv.cli import kernels
from pyconv.cli.derive import Wish, derive
from pyconv.cli.images import RESCALE, read_image, rescaled, write_image
from pyconv.cli.operators import parameters
from pyconv.cli.output import UsageError

if TYPE_CHECKING:
    from pyconv.operator import Operator

_OPTIONS: dict[str, dict[str, Any]] = {
    "--kernel": {
        "metavar": "NAME|FILE.npy",
        "help": "spatial weights, applied to each channel: "
        f"{', '.join(kernels.KERNELS)}; or a file with a kernel (kh, kw) or a whole weight array",
    },
    "--size": {"type": int, "metavar": "N", "help": "size of a kernel given by name"},
    "--mix": {
        "metavar": "NAME|FILE.npy",
        "help": "weights between channels, where the operator has a 1x1 stage: "
        f"{', '.join(kernels.MIXES)}; or a file with a matrix",
    },
    "--offset": {
        "metavar": "NAME|FILE.npy",
        "help": f"where a deformable operator samples: {', '.join(kernels.FIELDS)}; or a file with "
        "a displacement (2, H, W), down and to the right in pixels, or a whole offset array",
    },
    "--array": {
        "action": "append",
        "default": [],
        "metavar": "NAME=FILE.npy",
        "help": "any array of the operator, such as bias, as it is; may be repeated",
    },
    "--rescale": {
        "choices": RESCALE,
        "default": "auto",
        "help": "what becomes of values outside 0 to 1. clip: cut off; minmax: the smallest value "
        "is black, the largest white; signed: 0 is middle grey; auto: signed for results that are "
        "largely negative, such as edges, else clip (default)",
    },
    "--dtype": {
        "choices": ("float16", "float32", "float64"),
        "default": "float32",
        "help": "what to compute in (default: float32)",
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pyconv run``, except those that only the operator knows."""
    parser.usage = "pyconv run NAME IMAGE [-o FILE] [options] [--PARAMETER VALUE ...]"
    parser.add_argument("name", metavar="NAME", help="the operator, by name or alias")
    parser.add_argument("image", metavar="IMAGE", type=Path, help="an image file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="the result: an image file or .npy (default: IMAGE-NAME.png, in this directory)",
    )
    for option, settings in _OPTIONS.items():
        parser.add_argument(option, **settings)


def split_parameters(argv: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """Separate the operator's parameters from the other arguments.

    >>> split_parameters(["run", "dilated", "a.png", "--dilation", "2,3", "--size", "5"])
    (['run', 'dilated', 'a.png', '--size', '5'], {'dilation': (2, 3)})
    """
    ours = {"--help", "--output", *_OPTIONS}
    others: list[str] = []
    params: dict[str, object] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if not option.startswith("--") or option in ours:
            others.append(word)
            # The value that follows one of our options is not to be looked at.
            if option in ours - {"--help"} and not equals and rest:
                others.append(rest.pop(0))
            continue
        name = option[2:].replace("-", "_")
        if not name.isidentifier():
            raise UsageError(f"run: {word!r} is no parameter")
        if not equals:
            if not rest or rest[0].startswith("--") or rest[0] == "-o":
                raise UsageError(f"run: the parameter {option} needs a value")
            value = rest.pop(0)
        params[name] = _literal(value)
    return others, params


def _literal(text: str) -> object:
    """Return a value as Python would read it, and as text what Python would not read."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text, text)


def run(args: argparse.Namespace) -> int:
    """Read the image, call the operator, write the result."""
    op = pyconv.get(args.name)
    _check_names(op, args.parameters)
    output = args.output or Path(f"{args.image.stem}-{op.name}.png")
    image = read_image(args.image)
    x = image.pixels[None].astype(args.dtype)
    wish = Wish(args.kernel, args.mix, args.offset, args.size, args.parameters, _files(args.array))
    _check_choices(wish)
    call, weights = derive(op, x, wish)
    started = time.perf_counter()
    try:
        y = call()
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    elapsed = time.perf_counter() - started
    if call.params.get("layout") == "channels_last":
        y = np.moveaxis(y, -1, 1)
    note = _write(output, y[0], image.alpha, image.deep, args.rescale)
    settings = ", ".join(f"{name}={value!r}" for name, value in call.params.items())
    print(
        f"{op.name}({settings}), {weights}: {args.image} {x.shape[1:]} -> {output} {y.shape[1:]}, "
        f"{note}, {elapsed * 1e3:.1f} ms"
    )
    return 0


def _write(
    path: Path, y: np.ndarray[Any, Any], alpha: np.ndarray[Any, Any] | None, deep: bool, how: str
) -> str:
    """Write the result; return in words what became of its range."""
    if path.suffix.lower() == ".npy":
        np.save(path, y)
        return "values as they are"
    if y.ndim != 3 or len(y) not in (1, 3):
        raise UsageError(
            f"a result of shape {y.shape} is no image of 1 or 3 channels; "
            f"write it to {path.stem}.npy"
        )
    values, how = rescaled(y, how)
    write_image(path, values, alpha, deep)
    return f"range {float(y.min()):.3g} to {float(y.max()):.3g}, rescale {how}"


def _check_names(op: Operator, given: dict[str, object]) -> None:
    known = [parameter.name for parameter in parameters(op)]
    for name in given:
        if name == "out":
            raise UsageError("run: the result goes to the file after -o; out is no parameter here")
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *(o[2:] for o in _OPTIONS)], n=1)
            hint = f"; did you mean --{close[0]}?" if close else ""
            raise UsageError(
                f"{op.name} has no parameter {name!r}{hint} (it has: {', '.join(known)})"
            )


def _check_choices(wish: Wish) -> None:
    for option, name, known in (
        ("kernel", wish.kernel, kernels.KERNELS),
        ("mix", wish.mix, kernels.MIXES),
        ("offset", wish.offset, kernels.FIELDS),
    ):
        if name is not None and name not in known and not name.endswith(".npy"):
            raise UsageError(
                f"--{option} must be a .npy file or one of {', '.join(known)}; got {name}"
            )


def _files(pairs: Sequence[str]) -> dict[str, Path]:
    files = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise UsageError(f"--array must be NAME=FILE.npy; got {pair!r}")
        files[name] = Path(file)
    return files

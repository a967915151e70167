"""The demo's calls: what each built-in operator does to the photo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pyconv
from pyconv.cli import kernels
from pyconv.cli.images import read_image
from pyconv.cli.operators import AnyArray, Argument, Call
from pyconv.cli.output import require

if TYPE_CHECKING:
    from pyconv.operator import Operator

LUMA = kernels.mix("luma", 3)[0]
RATES = (1, 2, 4)
SHIFT = 12
LENS = (0.85, 0.76, 0.24)
"""Middle and radius of the lens, as shares of the height, of the width and of the width."""


@dataclass(frozen=True)
class Scene:
    """One call of an operator, for any photo: the whole one is timed, a crop is checked.

    Attributes
    ----------
    key : str
        By which the picture finds the result.
    operator : str
        The operator's name.
    build : callable
        Returns the arrays by name and the parameters for a photo of shape (1, 3, H, W).
    note : str
        What distinguishes this call from the operator's other ones.
    """

    key: str
    operator: str
    build: Callable[[AnyArray], tuple[dict[str, Argument], dict[str, Any]]]
    note: str = ""

    def call(self, photo: AnyArray) -> Call:
        """Return the call for a photo; all its arrays have the photo's dtype."""
        arrays, params = self.build(photo)
        return Call(pyconv.get(self.operator), _cast(arrays, photo.dtype), params)


def _cast(arrays: dict[str, Argument], dtype: Any) -> dict[str, Argument]:
    return {
        name: tuple(part.astype(dtype) for part in value)
        if isinstance(value, tuple)
        else None
        if value is None
        else np.ascontiguousarray(value, dtype)
        for name, value in arrays.items()
    }


def read_photo() -> AnyArray:
    """Return the photo that comes with matplotlib: float32 in [0, 1], shape (1, 3, 600, 512)."""
    matplotlib = require("matplotlib", "demo", "the demo")
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return read_image(path).pixels[None].astype(np.float32)


def crop(photo: AnyArray) -> AnyArray:
    """Return the part of the photo on which results are checked; its sides are odd, and differ."""
    return np.ascontiguousarray(photo[:, :, 130:257, 190:301])


def _per_channel(kernel: AnyArray) -> AnyArray:
    """Return depthwise weights: the same kernel for each of three channels."""
    return np.repeat(kernel[None, None], 3, axis=0)


def _edges(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    # Output channel 0 sees the luma change from left to right, channel 1 from top to bottom.
    sobel = np.stack([kernels.kernel("sobel-x"), kernels.kernel("sobel-y")])
    weight = sobel[:, None] * LUMA[None, :, None, None]
    return {"x": photo, "weight": weight}, {"padding": "same"}


def _sepia(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    return {"x": photo, "weight": kernels.mix("sepia", 3)}, {}


def _two_groups(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    # The photo twice: channels 0-2 are sharpened in sepia, channels 3-5 lose their detail and
    # change colour.
    warm = kernels.mix("sepia", 3)[:, :, None, None] * kernels.kernel("sharpen", 9)
    cold = kernels.mix("swap", 3)[:, :, None, None] * kernels.kernel("box", 9)
    arrays: dict[str, Argument] = {
        "x": np.concatenate([photo, photo], axis=1),
        "weight": np.concatenate([warm, cold]),
    }
    return arrays, {"groups": 2, "padding": "same", "padding_mode": "replicate"}


def _channel_shift(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    # A kernel with one tap moves its channel: red to the left, green not, blue to the right.
    weight = np.zeros((3, 1, 1, 2 * SHIFT + 1))
    weight[[0, 1, 2], 0, 0, [2 * SHIFT, SHIFT, 0]] = 1
    return {"x": photo, "weight": weight}, {"padding": "same", "padding_mode": "replicate"}


def _soft_duotone(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    ink, paper = np.array([0.05, 0.16, 0.42]), np.array([1.0, 0.97, 0.88])
    arrays: dict[str, Argument] = {
        "x": photo,
        "depthwise": _per_channel(kernels.kernel("gaussian", 13)),
        "pointwise": np.outer(paper - ink, LUMA),
        "bias": ink,
    }
    return arrays, {"padding": "same", "padding_mode": "replicate"}


def _soft(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    arrays, params = _soft_duotone(photo)
    return {**arrays, "pointwise": np.eye(3), "bias": None}, params


def _gaussian_row() -> AnyArray:
    return kernels.separated("gaussian", kernels.kernel("gaussian", 41))[1]


def _blur(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    row = _gaussian_row()
    weights = (_per_channel(row[:, None]), _per_channel(row[None, :]))
    params = {"groups": 3, "padding": "same", "padding_mode": "replicate"}
    return {"x": photo, "axis_weights": weights}, params


def _blur_down(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    arrays, params = _blur(photo)
    down = (_per_channel(_gaussian_row()[:, None]), np.ones((3, 1, 1, 1)))
    return {**arrays, "axis_weights": down}, params


def _rate(rate: int) -> Callable[[AnyArray], tuple[dict[str, Argument], dict[str, Any]]]:
    def build(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
        weight = kernels.kernel("sobel-x") * LUMA[None, :, None, None]
        return {"x": photo, "weight": weight}, {
            "dilation": rate,
            "padding": "same",
            "padding_mode": "replicate",
        }

    return build


def _upsample(size: int) -> Callable[[AnyArray], tuple[dict[str, Argument], dict[str, Any]]]:
    def build(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
        # All weights equal, so that only the number of taps that meet in a pixel shows. On
        # average it is (size / 2) ** 2: divided by that, brightness stays.
        weight = _per_channel(np.full((size, size), 4 / size**2))
        return {"x": photo, "weight": weight}, {"stride": 2, "padding": "same", "groups": 3}

    return build


def lens(v: AnyArray, u: AnyArray, height: int, width: int) -> tuple[AnyArray, AnyArray]:
    """Return where the lens lets the point (v, u) look: near its middle, all points move closer."""
    middle_v, middle_u, radius = LENS[0] * height, LENS[1] * width, LENS[2] * width
    dv, du = v - middle_v, u - middle_u
    inside = np.clip(1 - (dv**2 + du**2) / radius**2, 0, 1)
    scale = 1 - 0.62 * inside**0.7
    return middle_v + scale * dv, middle_u + scale * du


def _magnify(photo: AnyArray) -> tuple[dict[str, Argument], dict[str, Any]]:
    # Every tap is moved to where the lens has it, so the 3x3 window shrinks with the picture.
    height, width = photo.shape[2:]
    v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    offset = []
    for tap_v in (-1, 0, 1):
        for tap_u in (-1, 0, 1):
            seen_v, seen_u = lens(v + tap_v, u + tap_u, height, width)
            offset += [seen_v - v - tap_v, seen_u - u - tap_u]
    weight = np.eye(3)[:, :, None, None] * kernels.kernel("gaussian", 3)
    return {"x": photo, "offset": np.stack(offset)[None], "weight": weight}, {"padding": 1}


SCENES = (
    Scene("edges", "standard", _edges),
    Scene("sepia", "pointwise", _sepia),
    Scene("groups", "grouped", _two_groups),
    Scene("shift", "depthwise", _channel_shift),
    Scene("duotone", "depthwise_separable", _soft_duotone),
    Scene("blur", "spatially_separable", _blur),
    *(Scene(f"rate{rate}", "dilated", _rate(rate), f"rate {rate}") for rate in RATES),
    *(Scene(f"up{size}", "transposed", _upsample(size), f"k={size} s=2") for size in (3, 4)),
    Scene("lens", "deformable", _magnify),
)
"""The calls that are timed, checked and drawn, in the order of the table."""

STAGES = {
    "soft": Scene("soft", "depthwise_separable", _soft),
    "down": Scene("down", "spatially_separable", _blur_down),
}
"""Calls that the picture needs besides: what a composed operator has after its first stage."""


def case_calls(op: Operator) -> list[tuple[str, Call]]:
    """Return an operator's example calls, by name, with random arrays."""
    rng = np.random.default_rng(0)
    return [
        (
            case.name,
            Call(op, {name: _random(rng, s) for name, s in case.shapes.items()}, case.params),
        )
        for case in op.cases()
    ]


def _random(rng: np.random.Generator, shape: Any) -> Argument:
    """Return an array of a shape; several for several shapes, and none for None."""
    if shape is None:
        return None
    if shape and not isinstance(shape[0], int):
        return tuple(rng.standard_normal(part, np.float32) for part in shape)
    array: AnyArray = rng.standard_normal(shape, np.float32)
    return array

"""The panels of the demo's picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from pyconv.cli.demo.scenes import RATES, lens
from pyconv.cli.operators import AnyArray

INK = "#1b2230"
GREY = "#5d6675"
ACCENT = "#0b6bb5"
POINT = "#ffd23f"
# Negative, zero and positive: orange, white and dark blue, which nobody confuses.
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#b34700", "#f5a35c", "#ffffff", "#5a9bd5", "#08306b"]
)

# The same scale for all edge maps; a full step from black to white would be 1.
EDGES: dict[str, Any] = {"cmap": SIGNED, "vmin": -0.35, "vmax": 0.35}


@dataclass(frozen=True)
class Panel:
    """A cell of the sheet.

    Attributes
    ----------
    needs : tuple of str
        The results without which it cannot be drawn.
    title, text, caption : str
        The operator; what it does, in plain words; and the call, where ``{key}`` stands for the
        shape of a result.
    paint : callable
        Draws the results on the axes.
    """

    needs: tuple[str, ...]
    title: str
    text: str
    caption: str
    paint: Callable[[Axes, Mapping[str, AnyArray]], None]


def _image(y: AnyArray) -> AnyArray:
    """Return a result of three channels as Matplotlib wants it."""
    image: AnyArray = np.clip(np.moveaxis(y[0], 0, -1), 0, 1)
    return image


def _show(axes: Axes, image: AnyArray, **style: Any) -> None:
    axes.imshow(image, interpolation="lanczos", aspect="auto", **style)


def _halves(
    axes: Axes, left: AnyArray, right: AnyArray, labels: tuple[str, str], **style: Any
) -> None:
    """Show the left half of one picture and the right half of another."""
    middle = left.shape[1] // 2
    _show(axes, np.concatenate([left[:, :middle], right[:, middle:]], axis=1), **style)
    axes.axvline(middle - 0.5, color="white", linewidth=2)
    for x, label in zip((0.25, 0.75), labels, strict=True):
        _label(axes, x, label)


def _label(axes: Axes, x: float, words: str) -> None:
    axes.text(
        x,
        0.035,
        words,
        transform=axes.transAxes,
        ha="center",
        size=9.5,
        color="white",
        bbox={"facecolor": INK, "edgecolor": "none", "alpha": 0.85, "boxstyle": "round,pad=0.35"},
    )


def _paint_edges(axes: Axes, p: Mapping[str, AnyArray]) -> None:
    y = p["edges"][0]
    _halves(axes, y[0], y[1], ("0: left to right", "1: top to bottom"), **EDGES)


def _paint_groups(axes: Axes, p: Mapping[str, AnyArray]) -> None:
    y = p["groups"]
    _halves(axes, _image(y[:, :3]), _image(y[:, 3:]), ("group 0", "group 1"))


def _paint_stages(first: str, last: str, labels: tuple[str, str]) -> Callable[..., None]:
    def paint(axes: Axes, p: Mapping[str, AnyArray]) -> None:
        _halves(axes, _image(p[first]), _image(p[last]), labels)

    return paint


def _paint_rgb(key: str) -> Callable[..., None]:
    def paint(axes: Axes, p: Mapping[str, AnyArray]) -> None:
        _show(axes, _image(p[key]))

    return paint


def _paint_rate(rate: int) -> Callable[..., None]:
    def paint(axes: Axes, p: Mapping[str, AnyArray]) -> None:
        _show(axes, p[f"rate{rate}"][0, 0], **EDGES)
        _draw_taps(axes, rate)

    return paint


def _draw_taps(axes: Axes, rate: int) -> None:
    """Draw the taps of a 3x3 kernel at some rate on the grid of pixels, the same grid for all."""
    side = 2 * max(RATES) + 1
    box = axes.get_window_extent()
    inset = axes.inset_axes((0.66, 0.02, 0.32, 0.32 * box.width / box.height))
    inset.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), xticks=[], yticks=[])
    inset.set_facecolor("white")
    middle = side // 2
    for v in range(side):
        for u in range(side):
            tap = (v - middle) % rate == 0 and (u - middle) % rate == 0
            tap = tap and max(abs(v - middle), abs(u - middle)) <= rate
            color = ACCENT if tap else "#eef0f3"
            inset.add_patch(Rectangle((u - 0.44, v - 0.44), 0.88, 0.88, color=color, linewidth=0))
    for spine in inset.spines.values():
        spine.set(color=INK, linewidth=0.8)


# The part of the photo that is enlarged: top, left, height, width (in the panels' proportion).
DETAIL = (74, 94, 55, 46.9)


def _paint_zoom(key: str, scale: int) -> Callable[..., None]:
    def paint(axes: Axes, p: Mapping[str, AnyArray]) -> None:
        top, left, height, width = (scale * n for n in DETAIL)
        axes.imshow(_image(p[key]), interpolation="nearest", aspect="auto")
        axes.set(xlim=(left - 0.5, left + width - 0.5), ylim=(top + height - 0.5, top - 0.5))

    return paint


def _paint_points(axes: Axes, p: Mapping[str, AnyArray]) -> None:
    photo = p["photo"]
    height, width = photo.shape[2:]
    _show(axes, _image(photo) * 0.6)
    step = 18
    v, u = np.meshgrid(
        np.arange(step // 2, height, step), np.arange(step // 2, width, step), indexing="ij"
    )
    seen_v, seen_u = lens(v, u, height, width)
    # From each pixel of the result, a line to the point of the photo that it sees.
    lines = [u.ravel(), seen_u.ravel()], [v.ravel(), seen_v.ravel()]
    axes.plot(*lines, color="white", linewidth=0.6, alpha=0.7)
    axes.scatter(seen_u, seen_v, s=6, color=POINT, linewidths=0, zorder=3)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


PANELS = (
    Panel(("photo",), "the photo", "What goes in", "x {photo} float32", _paint_rgb("photo")),
    Panel(
        ("edges",),
        "standard",
        "Each output sees all channels: edges",
        "Sobel 3x3, weight (2, 3, 3, 3) -> {edges}",
        _paint_edges,
    ),
    Panel(
        ("sepia",),
        "pointwise",
        "Mixes the colours of each pixel: sepia",
        "1x1, weight (3, 3) -> {sepia}",
        _paint_rgb("sepia"),
    ),
    Panel(
        ("groups",),
        "grouped",
        "Two groups, each with its own filters",
        "groups=2, weight (6, 3, 9, 9) -> {groups}",
        _paint_groups,
    ),
    Panel(
        ("shift",),
        "depthwise",
        "One filter a channel: red left, blue right",
        "weight (3, 1, 1, 25) -> {shift}",
        _paint_rgb("shift"),
    ),
    Panel(
        ("duotone", "soft"),
        "depthwise_separable",
        "Filters each channel, then mixes them",
        "(3, 1, 13, 13), (3, 3) + bias -> {duotone}",
        _paint_stages("soft", "duotone", ("1 depthwise: blur", "2 pointwise: colour")),
    ),
    Panel(
        ("blur", "down"),
        "spatially_separable",
        "A 41x41 blur as a column, then a row",
        "(3, 1, 41, 1), (3, 1, 1, 41) -> {blur}",
        _paint_stages("down", "blur", ("1 column", "2 row")),
    ),
    *(
        Panel(
            (f"rate{rate}",),
            f"dilated, rate {rate}",
            text,
            f"3x3, dilation={rate} -> {{rate{rate}}}",
            _paint_rate(rate),
        )
        for rate, text in zip(
            RATES,
            (
                "Nine taps side by side: fine edges",
                "The same taps, every second pixel",
                "The same taps, every fourth pixel",
            ),
            strict=True,
        )
    ),
    Panel(
        ("photo",),
        "before upsampling",
        "A detail of the photo, to be doubled",
        "55 rows of x {photo}",
        _paint_zoom("photo", 1),
    ),
    Panel(
        ("up3",),
        "transposed, k=3 s=2",
        "Taps overlap unevenly: a checkerboard",
        "(3, 1, 3, 3), stride=2 -> {up3}",
        _paint_zoom("up3", 2),
    ),
    Panel(
        ("up4",),
        "transposed, k=4 s=2",
        "k is a multiple of s: no checkerboard",
        "(3, 1, 4, 4), stride=2 -> {up4}",
        _paint_zoom("up4", 2),
    ),
    Panel(
        ("photo",),
        "deformable: the offsets",
        "Points: where the result's pixels look",
        "offset (18, 600, 512)",
        _paint_points,
    ),
    Panel(
        ("lens",),
        "deformable: the result",
        "Where the points crowd, the picture grows",
        "3x3, offset as shown -> {lens}",
        _paint_rgb("lens"),
    ),
)

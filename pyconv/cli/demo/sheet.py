"""The demo's picture: a contact sheet on which one sees what each operator does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyconv.cli.demo.panels import ACCENT, GREY, INK, PANELS
from pyconv.cli.operators import AnyArray

FORMATS = (".png", ".jpg", ".pdf", ".svg")
"""What the sheet can be written as."""

COLUMNS, ROWS = 5, 3
# In inches: a panel's picture, the text above and below it, and the margins.
WIDTH, ABOVE, BELOW, GAP, MARGIN, HEAD, FOOT = 3.2, 0.50, 0.28, 0.22, 0.35, 0.95, 0.45


def draw(path: Path, pictures: Mapping[str, AnyArray], footer: str) -> None:
    """Write the sheet to a file; the other arguments are those of `sheet`."""
    sheet(pictures, footer).savefig(path)


def sheet(pictures: Mapping[str, AnyArray], footer: str) -> Figure:
    """Return the sheet.

    Parameters
    ----------
    pictures : mapping of str to ndarray
        The photo as ``"photo"``, and results by the key of their scene or stage. Those of failed
        operators are missing; their panels say so.
    footer : str
        A line of text.
    """
    rows, columns = pictures["photo"].shape[2:]
    height = WIDTH * rows / columns
    full_width = 2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    full_height = HEAD + ROWS * (ABOVE + height + BELOW) + (ROWS - 1) * GAP + FOOT
    figure = Figure(figsize=(full_width, full_height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)

    def text(x: float, y: float, words: str, **style: Any) -> None:
        figure.text(x / full_width, y / full_height, words, **style)

    text(MARGIN, full_height - 0.42, "pyconv", size=21, weight="bold", color=INK)
    text(MARGIN + 1.25, full_height - 0.42, "every operator on one photograph", size=21, color=INK)
    text(
        MARGIN,
        full_height - 0.70,
        "Shapes are (channels, height, width). Edge maps: blue is positive, white zero, orange "
        "negative.",
        size=11,
        color=GREY,
    )
    text(MARGIN, 0.18, footer, size=10, color=GREY)
    shapes = {key: _shape(y) for key, y in pictures.items()}
    for number, panel in enumerate(PANELS):
        row, column = divmod(number, COLUMNS)
        left = MARGIN + column * (WIDTH + GAP)
        top = full_height - HEAD - row * (ABOVE + height + BELOW + GAP)
        bottom = top - ABOVE - height
        text(left, top - 0.18, panel.title, size=12.5, weight="bold", color=ACCENT)
        text(left, top - 0.40, panel.text, size=10.5, color=INK)
        axes = figure.add_axes(
            (left / full_width, bottom / full_height, WIDTH / full_width, height / full_height)
        )
        axes.set(xticks=[], yticks=[])
        for side in axes.spines.values():
            side.set(color="#c4cad4", linewidth=0.8)
        if all(name in pictures for name in panel.needs):
            panel.paint(axes, pictures)
            text(
                left,
                bottom - 0.20,
                panel.caption.format(**shapes),
                size=8.6,
                family="monospace",
                color=GREY,
            )
        else:
            axes.text(0.5, 0.5, "failed: see the table", ha="center", color=GREY)
    return figure


def _shape(y: AnyArray) -> str:
    return f"({', '.join(map(str, y.shape[1:]))})"

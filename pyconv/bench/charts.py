"""Bar charts as SVG: a group of bars per layer, a bar per implementation.

Only shapes and class names are written; the page's style sheet has the colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from pyconv.bench.results import LayerResult

# In units of the drawing, which are pixels where the page is wide enough.
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 180, 70, 30, 22
BAR, PITCH, BETWEEN = 10, 12, 12


def chart(
    title: str,
    results: Sequence[LayerResult],
    names: Sequence[str],
    peaks: Mapping[str, float],
    *,
    in_microseconds: bool = False,
) -> str:
    """Return a legend and a drawing.

    Parameters
    ----------
    title : str
        What is shown, for those who do not see it.
    results : sequence of LayerResult
        A group of bars each.
    names : sequence of str
        The implementations, a bar each where there is something to show.
    peaks : mapping of str to float
        Vertical lines in GFLOP/s, by dtype.
    in_microseconds : bool
        Show the time of a call instead of GFLOP/s.
    """
    unit = "\u00b5s a call, shorter is better" if in_microseconds else "GFLOP/s"
    peaks = {} if in_microseconds else peaks
    values = [v for r in results for n in names if (v := _value(r, n, in_microseconds))]
    longest = max([*values, *peaks.values()], default=1.0)
    scale = (WIDTH - LEFT - RIGHT) / longest
    marks, y = [], TOP
    for result in results:
        lines, height = _group(result, names, y, scale, in_microseconds)
        marks += lines
        y += height + BETWEEN
    axis = _grid(longest, scale, y)
    limits = _peaks(peaks, scale, y)
    drawing = [f'<text class="tick" x="0" y="{TOP - 10}">{unit}</text>', *axis, *limits, *marks]
    has_limits = not in_microseconds and any(result.binds == "memory" for result in results)
    label = escape(f"{title}: {unit}")
    return (
        f"{_legend(names, has_limits=has_limits)}\n"
        f'<svg viewBox="0 0 {WIDTH} {y + BOTTOM}" role="img" aria-label="{label}">\n'
        + "\n".join(drawing)
        + "\n</svg>"
    )


def _value(result: LayerResult, name: str, in_microseconds: bool) -> float | None:
    seconds = result.seconds(name)
    return seconds * 1e6 if in_microseconds and seconds else result.gflops(name)


def _group(
    result: LayerResult, names: Sequence[str], top: int, scale: float, in_microseconds: bool
) -> tuple[list[str], int]:
    """Return the bars of a layer with its name, and their height."""
    lines: list[str] = []
    y = top
    for name in names:
        timing = result.timings.get(name)
        if timing is None or timing.status == "unsupported":
            continue
        value = _value(result, name, in_microseconds)
        if value is None:
            lines.append(
                f'<text class="trouble" x="{LEFT + 4}" y="{y + BAR - 1}">'
                f"<title>{escape(timing.note)}</title>{escape(name)} {timing.status}</text>"
            )
        else:
            spread = f", spread {timing.spread:.0%}" if timing.spread is not None else ""
            told = f"{name}: {value:.3g}, {(timing.seconds or 0) * 1e3:.3g} ms{spread}"
            width = max(value * scale, 1)
            lines += [
                f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" '
                f'fill="var(--{name})"><title>{escape(told)}</title></rect>',
                f'<text class="value" x="{LEFT + width + 5:.1f}" y="{y + BAR - 1}">'
                f"{_short(value)}</text>",
            ]
        y += PITCH
    height = max(y - top, PITCH)
    middle = top + height / 2 + 3
    layer = escape(result.layer.name)
    lines.append(
        f'<text x="{LEFT - 10}" y="{middle:.1f}" text-anchor="end">'
        f"<title>{escape(str(result.layer))}</title>{layer}</text>"
    )
    if result.binds == "memory" and not in_microseconds:
        limit = 2 * result.macs / result.least / 1e9
        x = LEFT + limit * scale
        lines.append(
            f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 2}" y2="{y}">'
            f"<title>{layer} at the memory bandwidth: {limit:.3g}</title></line>"
        )
    return lines, height


def _grid(longest: float, scale: float, bottom: int) -> list[str]:
    """Return vertical lines at round values, with the values above them."""
    step = _step(longest)
    lines = []
    for i in range(int(longest / step) + 1):
        x = LEFT + i * step * scale
        lines += [
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>',
            f'<text class="tick" x="{x:.1f}" y="{TOP - 10}" text-anchor="middle">'
            f"{i * step:g}</text>",
        ]
    return lines


def _step(longest: float) -> float:
    """Return a round number that divides `longest` into four to ten."""
    power: float = 10 ** math.floor(math.log10(longest / 4))
    return max(power * times for times in (1, 2, 5) if power * times <= longest / 4)


def _peaks(peaks: Mapping[str, float], scale: float, bottom: int) -> list[str]:
    lines = []
    for dtype, peak in peaks.items():
        x = LEFT + peak * scale
        lines += [
            f'<line class="peak" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>',
            f'<text class="peak-name" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">'
            f"{escape(dtype)} peak {peak:.0f}</text>",
        ]
    return lines


def _legend(names: Sequence[str], *, has_limits: bool) -> str:
    entries = [
        f'<span><i style="background:var(--{name})"></i>{escape(name)}</span>' for name in names
    ]
    if has_limits:
        what = "the limit where memory bandwidth binds"
        entries.append(f'<span><i class="mark"></i>{what}</span>')
    return f'<div class="legend">{"".join(entries)}</div>'


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"

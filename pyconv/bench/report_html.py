"""A run as one page: summary, and for each class a chart and a table. Nothing is loaded.

Colours, those of the charts too, are in the style sheet: light or dark, as the reader's system is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pyconv.bench.charts import chart
from pyconv.bench.layers import TITLES
from pyconv.bench.report_text import NONE, notes, speed, threads_text, times
from pyconv.bench.results import OURS, SLOW, LayerResult, Report

LIGHT = """
  --page: #fbfbfa; --card: #fff; --ink: #1d2329; --soft: #5d6670; --line: #e1e4e8;
  --good: #14713d; --bad: #b3261e; --limit: #b3261e;
  --pyconv: #1f5fd0; --pyconv_call: #8fb4f2; --torch: #d9822b; --torch_cl: #f0bd85;
  --ort: #2f8f5b; --openvino: #8c5fc7; --ncnn: #ad4a78; --ndimage: #7d8790; --oaconvolve: #b5bcc3;
"""
DARK = """
  --page: #14171a; --card: #1c2024; --ink: #e6e9ec; --soft: #9aa4ae; --line: #30363d;
  --good: #62c98d; --bad: #ff8a80; --limit: #ff8a80;
  --pyconv: #5a96ff; --pyconv_call: #35568f; --torch: #e89a4a; --torch_cl: #8a5b2a;
  --ort: #4fb37d; --openvino: #a987e0; --ncnn: #d0709c; --ndimage: #8b959e; --oaconvolve: #5a636b;
"""
CHART = """
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin-bottom: .5rem; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.legend i { width: .8rem; height: .8rem; border-radius: 2px; display: inline-block; }
.legend i.mark { width: 0; border-left: 2px solid var(--limit); border-radius: 0; }
svg { display: block; width: 100%; min-width: 40rem; height: auto; }
svg text { fill: var(--ink); font-size: 12px; font-family: inherit; }
svg .tick, svg .value { fill: var(--soft); font-size: 11px; }
svg .value { paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
svg .trouble { fill: var(--bad); font-size: 11px; }
svg .grid { stroke: var(--line); }
svg .peak { stroke: var(--limit); stroke-dasharray: 4 3; }
svg .limit { stroke: var(--limit); stroke-width: 2; }
svg .peak-name { fill: var(--limit); font-size: 11px; }
"""
_PAGE = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { margin: 0; font-size: 1.7rem; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.25rem; }
h3 { margin: 1.25rem 0 .5rem; font-size: 1rem; color: var(--soft); font-weight: 600; }
p, ul { margin: .25rem 0 .75rem; max-width: 60rem; }
.soft { color: var(--soft); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .75rem 1rem; margin: .5rem 0 1rem; overflow-x: auto;
}
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; }
a { color: var(--pyconv); text-decoration: none; }
a:hover { text-decoration: underline; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .left { text-align: left; }
tr:last-child.total td { border-top: 1px solid var(--line); font-weight: 600; }
.best { font-weight: 700; }
.good { color: var(--good); }
.bad { color: var(--bad); }
"""
STYLE = f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
{_PAGE}{CHART}"""

EXPLAINED = """
pyconv is a plan with its weights packed, pyconv_call the stateless call; torch_cl is torch with
channels last. The ratio is the best other library&rsquo;s time over that of pyconv&rsquo;s plan:
above 1, pyconv is the faster one. The share of the limit is what the measured peak or memory
bandwidth, whichever binds, would allow at best; algorithms that save multiply-adds, and data that
stays in the caches, can exceed it."""


def render(report: Report) -> str:
    """Return the page.

    Parameters
    ----------
    report : Report
        What was measured.

    Returns
    -------
    str
        HTML that needs no other file.
    """
    what = ", gradients" if report.facts["settings"].get("backward") else ""
    title = f"pyconv bench{what}: {report.facts['machine']['cpu']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _machine(report),
        *(_summary(report, threads) for threads in report.threads),
        _navigation(report),
        *(_class(report, key) for key in report.groups()),
        _notes(report),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


# ---- the parts of the page ---------------------------------------------------------------------


def _machine(report: Report) -> str:
    facts, settings = report.facts, report.facts["settings"]
    versions = ", ".join(dict.fromkeys(report.versions.values()))
    rows = [
        [
            f"{threads_text(limit['threads'])}, {limit['dtype']}",
            f"{limit['flops'] / 1e9:.1f}",
            f"{limit['bandwidth'] / 1e9:.1f}",
        ]
        for limit in report.limits
    ]
    return (
        f'<p class="soft">{escape(versions)}<br>{escape(str(facts["machine"]["system"]))}, '
        f"{facts['machine']['cpus']} CPUs; {escape(str(facts['date']))}; medians of "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s</p>"
        f'<p class="soft">{EXPLAINED}</p>'
        + _table(["measured limits", "multiply-add peak, GFLOP/s", "STREAM triad, GB/s"], rows)
    )


def _summary(report: Report, threads: int) -> str:
    summaries = report.summaries(threads)
    compared = any(summary.layers for summary in summaries.values())
    speedups = any(summary.speedup for summary in summaries.values())
    columns = ["class", "call / plan"]
    columns += ["layers", "ratio", f"under {SLOW}", "lowest"] * compared
    columns += ["speed-up"] * speedups
    rows = []
    for name, summary in summaries.items():
        row = [escape(name), times(summary.call_ratio) or ""]
        if compared:
            worst = summary.worst
            row += [str(summary.layers), _ratio(summary.ratio), str(summary.slow)]
            row.append(f"{_ratio(worst.ratio)} {escape(worst.layer.name)}" if worst else NONE)
        if speedups:
            row.append(times(summary.speedup) or "")
        rows.append(row)
    return f"<h2>Geometric means, {threads_text(threads)}</h2>\n" + _table(
        columns, rows, total=True
    )


def _navigation(report: Report) -> str:
    links = (f'<a href="#{key}">{escape(TITLES[key])}</a>' for key in report.groups())
    return f"<nav>{' '.join(links)}</nav>"


def _class(report: Report, key: str) -> str:
    parts = [f'<h2 id="{key}">{escape(TITLES[key])}</h2>']
    for threads in report.threads:
        results = report.of(threads, key)
        if results:
            parts += [
                f"<h3>{threads_text(threads)}</h3>",
                _chart(report, results, key),
                _numbers(report, results, key),
            ]
    return "\n".join(parts)


def _chart(report: Report, results: Sequence[LayerResult], key: str) -> str:
    peaks = {
        limit["dtype"]: limit["flops"] / 1e9
        for limit in report.limits
        if limit["threads"] == results[0].threads
        and limit["dtype"] in {result.layer.dtype for result in results}
    }
    names = [*OURS, *report.peers(results)]
    title = f"{TITLES[key]}, {threads_text(results[0].threads)}"
    drawn = chart(title, results, names, peaks, in_microseconds=key == "overhead")
    return f'<div class="card">{drawn}</div>'


def _numbers(report: Report, results: Sequence[LayerResult], key: str) -> str:
    overhead, peers = key == "overhead", report.peers(results)
    columns = ["us a call" if overhead else "GFLOP/s", *OURS, *peers]
    columns += ["spread", "of limit", *(["ratio"] if peers else [])]
    rows = []
    for result in results:
        names = [*OURS, *peers]
        best = min(names, key=lambda name: result.seconds(name) or math.inf)
        row = [f'<span title="{escape(str(result.layer))}">{escape(result.layer.name)}</span>']
        for name in names:
            text = escape(speed(result, name, in_microseconds=overhead) or "")
            timing = result.timings.get(name)
            if timing is not None and timing.note:
                text = f'<span title="{escape(timing.note)}">{text or "&ndash;"}</span>'
            row.append(f'<span class="best">{text}</span>' if name == best else text)
        spread = result.timings["pyconv"].spread
        row.append("" if spread is None else f"{spread:.0%}")
        row.append("" if result.share is None else f"{result.share:.0%} {result.binds}")
        if peers:
            row.append(_ratio(result.ratio))
        rows.append(row)
    return _table(columns, rows)


def _notes(report: Report) -> str:
    found = "".join(f"<li>{escape(line)}</li>" for line in notes(report))
    return f"<h2>Notes</h2>\n<ul>{found}</ul>" if found else ""


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    kind = "bad" if value < SLOW else "good" if value >= 1 else ""
    return f'<span class="{kind}">{times(value)}</span>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, total: bool = False) -> str:
    """Return a table; its cells are HTML."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    kind = ' class="total"' if total else ""
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return (
        f'<div class="card"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(f"<tr{kind}>{line}</tr>" for line in lines)
        + "\n</tbody></table></div>"
    )

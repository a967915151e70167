"""Write `docs/performance.rst` and its charts from a run of `pyconv bench --peers --json`.

    pyconv bench --peers --threads 1 --json run.json
    python asv_bench/performance.py run.json --machine "2-core AMD EPYC, AVX2, one thread"

Several files are taken together, if they are of the same machine. What the page shows is kept in
`docs/performance/results.json`, from which it can be written again; names of machines and dates are
left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyconv.bench import report_html
from pyconv.bench.charts import chart
from pyconv.bench.layers import TITLES
from pyconv.bench.results import OURS, Report, from_json, geometric_mean

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDER = DOCS / "performance"
KEPT = FOLDER / "results.json"

INTRODUCTION = """\
..
   Written by asv_bench/performance.py; changes here are lost.

Performance
===========

pyconv beside the other libraries, by ``pyconv bench --peers`` (:doc:`benchmarking` says what is
measured and how): {machine}.

{versions}

In the tables, a ratio is the time of another library over that of pyconv's plan, as the geometric
mean over the layers that both can run: **above 1, pyconv is faster**. ``torch_cl`` is PyTorch with
channels last. In the charts longer bars are faster, but for the call overhead; ``pyconv`` is a plan
with its weights packed, ``pyconv_call`` the stateless call. The dashed line is what the machine can
do at best, measured; algorithms that save multiply-adds can exceed it.

"""


def condensed(runs: Sequence[dict[str, Any]], machine: str) -> dict[str, Any]:
    """Return several runs as one, without what names a machine."""
    first = runs[0]
    results = {}
    for run in runs:
        for result in run["results"]:
            if not result["needs"]:
                results[result["layer"], result["dtype"], result["threads"]] = result
    for result in results.values():
        for timing in result["timings"].values():
            timing["rounds"] = [float(f"{seconds:.4g}") for seconds in timing["rounds"]]
            for name in ("seconds", "spread", "gflops", "error", "fastest"):
                if timing[name] is not None:
                    timing[name] = float(f"{timing[name]:.4g}")
            timing["note"] = timing["note"].partition(":")[0][:80]
    return {
        "machine": {"cpu": machine},
        "settings": first["settings"],
        "limits": first["limits"],
        "implementations": first["implementations"],
        "results": list(results.values()),
    }


def page(report: Report) -> str:
    """Return the page, and write the charts that it includes."""
    versions = ", ".join(dict.fromkeys(report.versions.values()))
    text = INTRODUCTION.format(machine=report.facts["machine"]["cpu"], versions=versions + ".")
    peers = [name for name in report.versions if name not in OURS]
    heads = ["class", "layers", *peers, "best of them"]
    rows = [[TITLES[key], *ratios(report, key, peers)] for key in report.groups()]
    text += heading("Every class") + table(heads, rows) + "\n"
    text += ".. raw:: html\n   :file: performance/style.html\n\n"
    for key in report.groups():
        text += heading(TITLES[key]) + f".. raw:: html\n   :file: performance/{key}.html\n\n"
        (FOLDER / f"{key}.html").write_text(drawn(report, key))
    (FOLDER / "style.html").write_text(style())
    return text.rstrip() + "\n"


def ratios(report: Report, key: str, peers: Sequence[str]) -> list[str]:
    """Return the cells of a class: how many layers, and the mean ratio of each library."""
    (threads,) = report.threads
    results = report.of(threads, key)
    cells = [str(sum(result.ratio is not None for result in results))]
    for peer in peers:
        both = [(r.seconds(peer), r.seconds()) for r in results]
        mean = geometric_mean(theirs / ours for theirs, ours in both if theirs and ours)
        cells.append(f"{mean:.2f}" if mean else "")
    mean = geometric_mean(result.ratio for result in results)
    return [*cells, f"{mean:.2f}" if mean else ""]


def drawn(report: Report, key: str) -> str:
    """Return the chart of a class."""
    (threads,) = report.threads
    results = report.of(threads, key)
    peaks = {
        limit["dtype"]: limit["flops"] / 1e9
        for limit in report.limits
        if limit["dtype"] in {result.layer.dtype for result in results}
    }
    names = [*OURS, *report.peers(results)]
    picture = chart(TITLES[key], results, names, peaks, in_microseconds=key == "overhead")
    return f'<div class="pyconv-chart">\n{picture}\n</div>\n'


def style() -> str:
    """Return the charts' style sheet, for the light and the dark theme of the documentation."""
    rules = "".join(
        f".pyconv-chart {line}\n" for line in report_html.CHART.strip().splitlines()
    ).replace("svg .tick, svg", ".tick, .pyconv-chart svg")
    return (
        f"<style>\n.pyconv-chart {{ overflow-x: auto; {report_html.LIGHT}}}\n"
        f'html[data-theme="dark"] .pyconv-chart {{ {report_html.DARK}}}\n{rules}</style>\n'
    )


def heading(title: str) -> str:
    """Return a title with its line."""
    return f"{title}\n{'-' * len(title)}\n\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (heads, *rows):
        lines += [f"   {'*' if i == 0 else ' '} - {cell}".rstrip() for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="by default what is kept")
    parser.add_argument("--machine", default="", help="what to call it")
    given = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if given.files:
        data = condensed([json.loads(path.read_text()) for path in given.files], given.machine)
        KEPT.write_text(
            json.dumps(data, separators=(",", ":")).replace('{"layer"', '\n{"layer"') + "\n"
        )
    data = json.loads(KEPT.read_text())
    (DOCS / "performance.rst").write_text(page(from_json(data)))


if __name__ == "__main__":
    main()

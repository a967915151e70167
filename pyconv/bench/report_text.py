"""The tables of a run, for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from pyconv.bench.layers import TITLES
from pyconv.bench.regret import NOTICED, Regret
from pyconv.bench.results import SLOW, LayerResult, Report, geometric_mean
from pyconv.cli.output import Cell, print_heading, print_table

WORST = 10
"""How many of the lowest ratios, or worst choices, are listed for random layers."""

NONE = "nothing to compare with"
"""What stands for the lowest ratio where there is none."""


def print_report(report: Report, *, worst: bool = False) -> None:
    """Print a table per thread count and class, the summaries, and what went wrong.

    Parameters
    ----------
    report : Report
        What was measured.
    worst : bool
        List the layers with the lowest ratios too.
    """
    _print_limits(report)
    for threads in report.threads:
        for key in report.groups():
            results = report.of(threads, key)
            unit = "us a call" if key == "overhead" else "GFLOP/s"
            print_heading(f"{TITLES[key]}: {threads_text(threads)}, {unit}")
            _print_class(report, results, in_microseconds=key == "overhead")
    for threads in report.threads:
        _print_summary(report, threads)
        if worst:
            _print_worst(report, threads)
    _print_notes(report)


def threads_text(count: int) -> str:
    """Return a number of threads in words."""
    return f"{count} thread{'s' * (count != 1)}"


def _print_limits(report: Report) -> None:
    machine = report.facts["machine"]
    versions = ", ".join(dict.fromkeys(report.versions.values()))
    print(f"{machine['cpu']}, {machine['cpus']} CPUs; {versions}")
    for limit in report.limits:
        print(
            f"{threads_text(limit['threads'])}, {limit['dtype']}: multiply-add peak "
            f"{limit['flops'] / 1e9:.1f} GFLOP/s, STREAM triad {limit['bandwidth'] / 1e9:.1f} GB/s"
        )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}" if value < 10 else f"{value:.0f}"


def speed(result: LayerResult, name: str, *, in_microseconds: bool) -> str | None:
    """Return what a cell shows of an implementation: its speed, what went wrong, or nothing."""
    timing = result.timings.get(name)
    if timing is None or timing.status == "unsupported":
        return None
    if timing.status != "ok":
        return timing.status
    if in_microseconds:
        return f"{timing.seconds * 1e6:.1f}" if timing.seconds else None
    return _number(result.gflops(name))


def _print_class(report: Report, results: Sequence[LayerResult], *, in_microseconds: bool) -> None:
    peers = report.peers(results)
    columns = ["layer", "pyconv", "spread", "of limit", "call", *peers, "best", "ratio"]
    if not peers:
        columns = columns[:5]
    rows: list[list[Cell]] = []
    for result in results:
        spread = result.timings["pyconv"].spread
        row: list[Cell] = [
            result.layer.name,
            speed(result, "pyconv", in_microseconds=in_microseconds),
            None if spread is None else f"{spread:.0%}",
            None if result.share is None else f"{result.share:.0%} {result.binds}",
            speed(result, "pyconv_call", in_microseconds=in_microseconds),
            *(speed(result, name, in_microseconds=in_microseconds) for name in peers),
            result.best_peer,
            times(result.ratio),
        ]
        rows.append(row[: len(columns)])
    slow = {i: "yellow" for i, r in enumerate(results) if r.ratio is not None and r.ratio < SLOW}
    wrong = {
        i: "red"
        for i, r in enumerate(results)
        if any(timing.status == "wrong" for timing in r.timings.values())
    }
    right = [column for column in columns if column not in ("layer", "best")]
    print_table(columns, rows, right=right, styles=slow | wrong)


def _print_summary(report: Report, threads: int) -> None:
    print_heading(f"Geometric means: {threads_text(threads)}")
    summaries = report.summaries(threads)
    compared = any(summary.layers for summary in summaries.values())
    against_one = any(summary.speedup for summary in summaries.values())
    columns = ["class", "call/plan"]
    columns += ["layers", "ratio", f"under {SLOW}", "lowest"] * compared
    columns += ["speed-up"] * against_one
    rows: list[list[Cell]] = []
    for title, summary in summaries.items():
        row: list[Cell] = [title, times(summary.call_ratio)]
        if compared:
            worst = summary.worst
            lowest = f"{times(worst.ratio)} {worst.layer.name}" if worst else NONE
            row += [summary.layers, times(summary.ratio), summary.slow, lowest]
        if against_one:
            row.append(times(summary.speedup))
        rows.append(row)
    right = [column for column in columns if column not in ("class", "lowest")]
    print_table(columns, rows, right=right, styles={len(rows) - 1: "bold"})


def times(value: float | None) -> str | None:
    """Return a ratio as text."""
    return None if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _print_worst(report: Report, threads: int) -> None:
    results = sorted(
        (r for r in report.of(threads) if r.ratio is not None), key=lambda r: r.ratio or 0
    )
    if results:
        print_heading(f"The lowest ratios: {threads_text(threads)}")
        print_table(
            ["ratio", "best", "layer", "which is"],
            [[times(r.ratio), r.best_peer, r.layer.name, r.layer] for r in results[:WORST]],
            right=["ratio"],
        )


def print_regrets(regrets: Sequence[Regret]) -> None:
    """Print what choosing costs, by thread count: means, and the worst choices."""
    for threads in dict.fromkeys(regret.threads for regret in regrets):
        some = [regret for regret in regrets if regret.threads == threads]
        by_title: dict[str, list[Regret]] = {}
        for regret in some:
            by_title.setdefault(TITLES[regret.layer.group], []).append(regret)
        by_title["everything together"] = some
        print_heading(f"Time of the algorithm chosen over the fastest: {threads_text(threads)}")
        rows: list[list[Cell]] = []
        for title, several in by_title.items():
            values = [regret.value for regret in several]
            above = sum(value > NOTICED for value in values)
            mean = geometric_mean(values)
            rows.append([title, len(values), times(mean), above, times(max(values))])
        columns = ["class", "layers", "regret", f"over {NOTICED}", "worst"]
        print_table(columns, rows, right=columns[1:], styles={len(rows) - 1: "bold"})
        worst = sorted(some, key=lambda regret: -regret.value)[:WORST]
        print_heading(f"The worst choices: {threads_text(threads)}")
        print_table(
            ["regret", "chosen", "fastest", "layer", "which is"],
            [[times(r.value), r.chosen, r.best, r.layer.name, r.layer] for r in worst],
            right=["regret"],
        )


def _print_notes(report: Report) -> None:
    lines = notes(report)
    if lines:
        print_heading("Notes")
    for line in lines:
        print(line)


def notes(report: Report) -> list[str]:
    """Return a line for everything that could not be compared, equal ones together."""
    layers: dict[str, list[str]] = {}
    for result in report.results:
        for name, timing in result.timings.items():
            if timing.note:
                line = f"{name}: {timing.status}: {timing.note}"
                layers.setdefault(line, []).append(result.layer.name)
    lines = []
    for line, several in layers.items():
        names = list(dict.fromkeys(several))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"{line} ({', '.join(names[:3])}{more})")
    return lines

"""What was measured, and what follows from it: medians, spreads, ratios, means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyconv.bench.layers import APART, TITLES, Layer

OURS = ("pyconv", "pyconv_call")
"""The implementations that are pyconv: the plan, and the stateless call."""

SLOW = 0.9
"""Ratios below are counted."""

LARGE_FLOPS = 50e6
"""Layers beyond are expected to profit from threads."""


@dataclass
class Timing:
    """One implementation on one layer.

    Attributes
    ----------
    status : {"ok", "unsupported", "failed", "crashed", "wrong"}
        Whether it can be compared.
    note : str
        Why not.
    rounds : list of float
        Seconds of a call in each round, the median of that round's calls.
    fastest : float
        Seconds of the fastest call.
    error : float or None
        The largest error as a share of what pyconv promises.
    """

    status: str
    note: str = ""
    rounds: list[float] = field(default_factory=list)
    fastest: float = math.inf
    error: float | None = None

    @property
    def seconds(self) -> float | None:
        """The median over the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def spread(self) -> float | None:
        """The distance of the slowest round from the fastest, as a share of the median."""
        return (max(self.rounds) - min(self.rounds)) / self.seconds if self.seconds else None

    def fail(self, status: str, note: str) -> None:
        """Discard what was measured."""
        self.status, self.note, self.rounds, self.fastest = status, note, [], math.inf


@dataclass
class LayerResult:
    """All implementations on one layer.

    Attributes
    ----------
    layer : Layer
        The layer.
    threads : int
        Threads of each implementation.
    macs, nbytes : int
        Multiply-adds of the definition, and the size of all arguments and the result.
    least : float
        The shortest time the machine allows: `macs` at its peak or `nbytes` at its bandwidth.
    binds : {"peak", "memory"}
        Which of them it is.
    timings : dict of str to Timing
        By implementation.
    """

    layer: Layer
    threads: int
    macs: int
    nbytes: int
    least: float
    binds: str
    timings: dict[str, Timing]

    def seconds(self, name: str = "pyconv") -> float | None:
        """Return an implementation's median, None without one or if its result is wrong."""
        timing = self.timings.get(name)
        return timing.seconds if timing is not None and timing.status == "ok" else None

    def gflops(self, name: str = "pyconv") -> float | None:
        """Return the multiply-adds as operations, in 10^9 a second."""
        seconds = self.seconds(name)
        return 2 * self.macs / seconds / 1e9 if seconds else None

    @property
    def share(self) -> float | None:
        """The least time as a share of pyconv's plan; above 1 if it saves arithmetic."""
        seconds = self.seconds()
        return self.least / seconds if seconds else None

    @property
    def best_peer(self) -> str | None:
        """The fastest of the other libraries."""
        times = {n: s for n in self.timings if n not in OURS and (s := self.seconds(n)) is not None}
        return min(times, key=times.__getitem__, default=None)

    @property
    def ratio(self) -> float | None:
        """The best peer's time over that of pyconv's plan."""
        ours, peer = self.seconds(), self.best_peer
        theirs = self.seconds(peer) if peer else None
        return theirs / ours if ours and theirs else None

    @property
    def call_ratio(self) -> float | None:
        """The time of the stateless call over that of the plan."""
        plan, call = self.seconds(), self.seconds("pyconv_call")
        return call / plan if plan and call else None


@dataclass(frozen=True)
class Summary:
    """Several layers on the same number of threads.

    Attributes
    ----------
    layers : int
        How many have a ratio.
    ratio : float or None
        The geometric mean of the ratios.
    worst : LayerResult or None
        The layer with the lowest ratio.
    slow : int
        How many ratios are below `SLOW`.
    call_ratio : float or None
        The geometric mean of the stateless call's time over the plan's.
    speedup : float or None
        The geometric mean of the time on one thread over that on these, over large layers.
    """

    layers: int
    ratio: float | None
    worst: LayerResult | None
    slow: int
    call_ratio: float | None
    speedup: float | None


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the values that there are, None if there are none."""
    logs = [math.log(value) for value in values if value]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def summarize(
    results: Sequence[LayerResult], single: Mapping[str, LayerResult] | None = None
) -> Summary:
    """Summarize results; `single` has those on one thread by layer, to compare with."""
    compared = [result for result in results if result.ratio is not None]
    speedups = [
        one / many
        for result in results
        if single and 2 * result.macs >= LARGE_FLOPS and result.layer.name in single
        if (one := single[result.layer.name].seconds()) and (many := result.seconds())
    ]
    return Summary(
        layers=len(compared),
        ratio=geometric_mean(result.ratio for result in compared),
        worst=min(compared, key=lambda result: result.ratio or 0, default=None),
        slow=sum(result.ratio < SLOW for result in compared if result.ratio is not None),
        call_ratio=geometric_mean(result.call_ratio for result in results),
        speedup=geometric_mean(speedups),
    )


@dataclass
class Report:
    """A whole run.

    Attributes
    ----------
    facts : dict
        The machine, versions and settings, of JSON types.
    limits : list of dict
        What the machine can do, by thread count and dtype.
    versions : dict of str to str
        The implementations, in the order of the tables.
    results : list of LayerResult
        By thread count, then in the order of the layers.
    """

    facts: dict[str, Any]
    limits: list[dict[str, Any]]
    versions: dict[str, str]
    results: list[LayerResult] = field(default_factory=list)

    @property
    def threads(self) -> list[int]:
        """The thread counts."""
        return list(dict.fromkeys(result.threads for result in self.results))

    def of(self, threads: int, group: str | None = None) -> list[LayerResult]:
        """Return the results of a thread count, and of a class if given."""
        return [r for r in self.results if r.threads == threads and group in (None, r.layer.group)]

    def peers(self, results: Sequence[LayerResult]) -> list[str]:
        """Return the other libraries that have something to show in these results."""
        return [
            name
            for name in self.versions
            if name not in OURS
            and any(r.timings[name].status != "unsupported" for r in results if name in r.timings)
        ]

    def groups(self) -> list[str]:
        """Return the keys of the classes that have results."""
        present = {result.layer.group for result in self.results}
        return [key for key in TITLES if key in present]

    def single(self) -> dict[str, LayerResult]:
        """Return the results on one thread by layer."""
        return {result.layer.name: result for result in self.of(1)}

    def summaries(self, threads: int) -> dict[str, Summary]:
        """Return the summary of each class by its title, and of everything together.

        Where a class has gradients of the input and of weights, each of them has its own besides.
        """
        single = self.single() if threads > 1 else None
        by_title = {}
        for key in self.groups():
            results = self.of(threads, key)
            by_title[TITLES[key]] = summarize(results, single)
            kinds = dict.fromkeys(_kind(result.layer.needs) for result in results)
            for kind in kinds if len(kinds) > 1 else ():
                some = [result for result in results if _kind(result.layer.needs) == kind]
                by_title[f"{TITLES[key]}: {kind}"] = summarize(some, single)
        counted = [r for r in self.of(threads) if r.layer.group not in APART]
        return {**by_title, "everything together": summarize(counted, single)}

    def wrong(self) -> list[tuple[LayerResult, str]]:
        """Return who failed the run: wrong answers of anyone, and whatever pyconv failed at."""
        return [
            (result, name)
            for result in self.results
            for name, timing in result.timings.items()
            if timing.status == "wrong"
            or (name in OURS and timing.status in ("failed", "crashed", "unsupported"))
        ]

    def troubles(self) -> list[tuple[LayerResult, str]]:
        """Return the failures and crashes of other libraries."""
        return [
            (result, name)
            for result in self.results
            for name, timing in result.timings.items()
            if name not in OURS and timing.status in ("failed", "crashed")
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything, of JSON types."""
        return {
            **self.facts,
            "limits": self.limits,
            "implementations": self.versions,
            "summary": [
                {
                    "threads": threads,
                    "class": title,
                    **vars(summary),
                    "worst": summary.worst and summary.worst.layer.name,
                }
                for threads in self.threads
                for title, summary in self.summaries(threads).items()
            ],
            "results": [_as_json(result) for result in self.results],
        }


def _kind(needs: Sequence[str]) -> str:
    return "all" if len(needs) > 1 else "input" if "x" in needs else "weights"


def _finite(value: float | None) -> float | None:
    """Leave out what JSON has no number for."""
    return value if value is not None and math.isfinite(value) else None


def _as_json(result: LayerResult) -> dict[str, Any]:
    layer = result.layer
    return {
        "layer": layer.name,
        "class": layer.group,
        "operator": layer.operator,
        "needs": list(layer.needs),
        "shapes": dict(layer.shapes),
        "params": dict(layer.params),
        "dtype": layer.dtype,
        "threads": result.threads,
        "macs": result.macs,
        "bytes": result.nbytes,
        "least_seconds": result.least,
        "binds": result.binds,
        "share": result.share,
        "best_peer": result.best_peer,
        "ratio": result.ratio,
        "timings": {
            name: {
                "status": timing.status,
                "note": timing.note,
                "seconds": timing.seconds,
                "spread": timing.spread,
                "fastest": _finite(timing.fastest),
                "gflops": result.gflops(name),
                "error": _finite(timing.error),
                "rounds": timing.rounds,
            }
            for name, timing in result.timings.items()
        },
    }


def from_json(data: Mapping[str, Any]) -> Report:
    """Return the report that `Report.as_json` was made of, but for what follows from it."""
    kept = ("limits", "implementations", "summary", "results")
    return Report(
        facts={name: value for name, value in data.items() if name not in kept},
        limits=data["limits"],
        versions=data["implementations"],
        results=[_result(each) for each in data["results"]],
    )


def _result(data: Mapping[str, Any]) -> LayerResult:
    layer = Layer(
        data["layer"], data["class"], data["operator"], data["shapes"], data["params"],
        data["dtype"], tuple(data["needs"]),
    )  # fmt: skip
    timings = {
        name: Timing(
            each["status"], each["note"], each["rounds"],
            math.inf if each["fastest"] is None else each["fastest"], each["error"],
        )
        for name, each in data["timings"].items()
    }  # fmt: skip
    return LayerResult(
        layer, data["threads"], data["macs"], data["bytes"], data["least_seconds"], data["binds"],
        timings,
    )  # fmt: skip

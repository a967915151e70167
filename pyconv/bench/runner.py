"""Rounds over the processes that are compared: the same arrays, one process running at a time.

Every implementation has a process for the length of a run. In each round each of them times the
layer once, in turn, so that what slows the machine down for a while slows all of them down. The
others wait at a pipe meanwhile; threads that their libraries keep spinning after a call are given
the time to fall asleep.
"""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import pyconv
from pyconv.bench.exact import LENIENCE, Exact, distance, exact
from pyconv.bench.layers import Layer
from pyconv.bench.machine import Limits
from pyconv.bench.peers import worker
from pyconv.bench.processes import PROGRAM, Process, WorkerError
from pyconv.bench.results import OURS, LayerResult, Timing
from pyconv.cli.operators import arguments

SETTLE = 0.05
"""Seconds between turns on several threads. Threads that wait for more work spin for a while: under
GNU OpenMP 10 ms, in ONNX Runtime 40 ms."""

_KINDS = {
    "standard": "convolution",
    "pointwise": "convolution",
    "grouped": "convolution",
    "depthwise": "convolution",
    "dilated": "convolution",
    "transposed": "transposed",
    "depthwise_separable": "separable",
    "deformable": "deformable",
}


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    rounds : int
        How often each implementation has its turn.
    seconds : float
        How long a turn lasts, or one call if that takes longer.
    """

    rounds: int = 5
    seconds: float = 0.1


class Runner:
    """The processes of one thread count; a context manager, which ends them.

    Parameters
    ----------
    names : sequence of str
        The implementations, out of `worker.NAMES`.
    threads : int
        Threads for each of them.
    settings : Settings
        How to measure.
    python : str, optional
        The interpreter that runs other libraries, by default this one.
    program : str, optional
        The program of every process.

    Attributes
    ----------
    versions : dict of str to str
        What runs, by implementation.
    absent : dict of str to str
        Why the other ones do not.
    """

    def __init__(
        self,
        names: Sequence[str],
        threads: int,
        settings: Settings,
        python: str = sys.executable,
        program: str = PROGRAM,
    ) -> None:
        self.threads, self.settings = threads, settings
        self._temporary = tempfile.TemporaryDirectory(prefix="pyconv-bench-")
        self._folder = Path(self._temporary.name)
        self._processes = [
            Process(
                name, threads, sys.executable if name in OURS else python, self._folder, program
            )
            for name in names
        ]
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}

    def __enter__(self) -> Runner:
        try:
            for process in self._processes:
                self._start(process)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._processes = [p for p in self._processes if p.name in self.versions]
        return self

    def _start(self, process: Process) -> None:
        try:
            hello = process.start()
        except (WorkerError, OSError) as error:
            self.absent[process.name] = str(error)
            return
        if hello["status"] == "ok":
            self.versions[process.name] = process.version
        else:
            process.stop()
            self.absent[process.name] = hello["note"]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.stop()
        self._temporary.cleanup()

    def run(
        self, layers: Iterable[Layer], limits: dict[str, Limits], step: Callable[[str], None]
    ) -> Iterator[LayerResult]:
        """Measure layers, one after the other.

        Parameters
        ----------
        layers : iterable of Layer
            What to measure.
        limits : dict of str to Limits
            What the machine can do, by dtype.
        step : callable
            Called with the name of each layer as it starts.
        """
        for layer in layers:
            step(f"{layer.name}, {self.threads} thread{'s' * (self.threads > 1)}")
            yield self._measure(layer, limits[layer.dtype])

    def _measure(self, layer: Layer, limits: Limits) -> LayerResult:
        cost = _cost(layer)
        nbytes = cost.bytes_moved * np.dtype(layer.dtype).itemsize // 4
        least, binds = limits.least_seconds(cost.macs, nbytes)
        files = self._save(layer)
        order = _description(layer)
        timings = {p.name: self._prepare(p, order, files) for p in self._processes}
        _compare(exact(layer), {n: t for n, t in timings.items() if t.status == "ok"}, self._result)
        time.sleep(SETTLE)  # the exact result was computed on threads too
        running = [p for p in self._processes if timings[p.name].status == "ok"]
        for number in range(self.settings.rounds):
            first = number % max(len(running), 1)
            for process in running[first:] + running[:first]:  # nobody always follows the same
                self._turn(process, timings[process.name])
        return LayerResult(layer, self.threads, cost.macs, nbytes, least, binds, timings)

    def _save(self, layer: Layer) -> dict[str, Any]:
        def save(name: str, value: Any) -> Any:
            if value is None:
                return None
            if isinstance(value, tuple):
                return [save(f"{name}{i}", each) for i, each in enumerate(value)]
            np.save(self._folder / f"{name}.npy", value)
            return str(self._folder / f"{name}.npy")

        return {name: save(name, value) for name, value in layer.arrays().items()}

    def _result(self, name: str) -> Path:
        return self._folder / f"result-{name}.npy"

    def _prepare(self, process: Process, layer: dict[str, Any], files: dict[str, Any]) -> Timing:
        out = self._result(process.name)
        try:
            answer = process.ask("prepare", layer=layer, files=files, out=str(out))
        except WorkerError as error:
            return Timing("crashed", f"while it prepared the layer: {error}")
        status = answer["status"] if answer["status"] != "missing" else "failed"
        return Timing(status, answer.get("note", ""))

    def _turn(self, process: Process, timing: Timing) -> None:
        if timing.status != "ok":
            return
        if self.threads > 1:
            time.sleep(SETTLE)
        try:
            answer = process.ask("measure", seconds=self.settings.seconds)
        except WorkerError as error:
            timing.fail("crashed", str(error))
            return
        if answer["status"] == "ok":
            timing.rounds.append(answer["median"])
            timing.fastest = min(timing.fastest, answer["fastest"])
        else:
            timing.fail("failed", answer["note"])


def _cost(layer: Layer) -> Any:
    op = pyconv.get(layer.operator)
    positional, keyword = arguments(op, layer.shapes)
    return op.cost(*positional, **keyword, **layer.params)


def _compare(right: Exact, timings: dict[str, Timing], file: Callable[[str], Path]) -> None:
    """Mark what is wrong, and say what it differs from."""
    results = {name: np.load(file(name)) for name in timings}
    judge = "the definition" if right.by_definition else "pyconv in float64"
    if not right.by_definition:
        # Two other libraries that agree with each other overrule pyconv, its own judge here.
        others = [n for n in timings if n not in OURS and right.error(results[n]) > LENIENCE]
        for a, b in itertools.combinations(others, 2):
            apart = distance(results[a], results[b])
            if worker.NAMES[a][0] != worker.NAMES[b][0] and apart <= right.bound:
                right, judge = replace(right, y=results[a]), f"{a} and {b}, which agree,"
                break
    for name, timing in timings.items():
        timing.error = right.error(results[name])
        allowed = 1 if name in OURS else LENIENCE
        if timing.error > allowed:
            times = f"{timing.error / allowed:.3g} times"
            timing.fail("wrong", f"differs from {judge} by {times} what is allowed")


def _description(layer: Layer) -> dict[str, Any]:
    """Return a layer as the processes take it, see `pyconv.bench.peers`."""
    own = {"operator": layer.operator, "params": dict(layer.params), "dtype": layer.dtype}
    kind = _KINDS.get(layer.operator)
    if kind is None or layer.group == "cases":  # parameters that other libraries do not have
        return {**own, "kind": None}
    params, rank = layer.params, len(layer.kernel)
    groups, offset_groups = params.get("groups", 1), 1
    if layer.operator in ("depthwise", "depthwise_separable"):
        groups = layer.shapes["x"][1]
    if kind == "deformable":
        offset_groups = layer.shapes["offset"][1] // (rank * math.prod(layer.kernel))
    return {
        **own,
        "kind": kind,
        "kernel": list(layer.kernel),
        "stride": _per_axis(params.get("stride", 1), rank),
        "padding": _per_axis(params.get("padding", 0), rank),
        "dilation": _per_axis(params.get("dilation", 1), rank),
        "output_padding": _per_axis(params.get("output_padding", 0), rank),
        "groups": groups,
        "offset_groups": offset_groups,
        "winograd": params.get("algorithm") != "direct",
    }


def _per_axis(value: Any, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else list(value)

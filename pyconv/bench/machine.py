"""What this machine can do at best, measured: multiply-adds and memory traffic by thread count.

Nothing else should run meanwhile; the best of several attempts counts.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pyconv import dtypes
from pyconv._kernels import _machine

ATTEMPTS = 7
PEAK_SECONDS = 0.02
TRIAD_ELEMENTS = 8 * 2**20
"""Elements of each of three float64 arrays: 192 MiB, beyond the caches of most machines."""


@dataclass(frozen=True)
class Limits:
    """The best that `threads` threads can do in one dtype.

    Attributes
    ----------
    threads : int
        How many threads.
    dtype : str
        The dtype of the arithmetic.
    flops : float
        Operations a second, a multiply-add being two.
    bandwidth : float
        Bytes a second, as the STREAM triad counts them: two reads and one write.
    """

    threads: int
    dtype: str
    flops: float
    bandwidth: float

    def least_seconds(self, macs: int, nbytes: int) -> tuple[float, str]:
        """Return the shortest time that the work could take, and what binds.

        Parameters
        ----------
        macs : int
            Multiply-adds.
        nbytes : int
            Bytes to read or write at least once.

        Returns
        -------
        seconds : float
        binds : {"peak", "memory"}
        """
        arithmetic, traffic = 2 * macs / self.flops, nbytes / self.bandwidth
        return (arithmetic, "peak") if arithmetic >= traffic else (traffic, "memory")


def peak(dtype: str, threads: int) -> float:
    """Return the operations a second of multiply-adds in registers."""
    compute = dtypes.storage_code(np.dtype(dtype))
    rounds, seconds = 1000, 0.0
    while seconds < PEAK_SECONDS:  # long enough to hide the start of the threads
        rounds *= 2
        seconds = _best(partial(_machine.multiply_add, rounds, compute, threads), 1)
    run = partial(_machine.multiply_add, rounds, compute, threads)
    return run() / _best(run, ATTEMPTS)


def bandwidth(threads: int) -> float:
    """Return the bytes a second of the STREAM triad."""
    a, b, out = (np.ones(TRIAD_ELEMENTS) for _ in range(3))
    _machine.triad(a, b, out, threads)
    return 3 * a.nbytes / _best(lambda: _machine.triad(a, b, out, threads), ATTEMPTS)


def limits(threads: list[int], names: list[str]) -> dict[tuple[int, str], Limits]:
    """Measure the limits for every thread count and dtype name, and return them by both."""
    measured = {}
    for count in threads:
        traffic = bandwidth(count)
        for dtype in names:
            measured[count, dtype] = Limits(count, dtype, peak(dtype, count), traffic)
    return measured


def describe() -> dict[str, object]:
    """Return what the machine calls itself."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu(),
        "cpus": len(affinity(0)) if affinity else os.cpu_count(),
        "system": platform.platform(),
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _best(function: Callable[[], object], attempts: int) -> float:
    best = float("inf")
    for _ in range(attempts):
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best

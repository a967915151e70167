"""How many threads a call may use: the one place that decides.

In order: the call's ``threads=``, the innermost `threads` block, `set_num_threads`, the
environment's ``PYCONV_NUM_THREADS``, then ``OMP_NUM_THREADS``, then the CPUs that this process may
use (its affinity mask and its control group's quota).

This module is not called ``threads`` because importing it would then replace `pyconv.threads`.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from pyconv.checks import integer

__all__ = ["get_num_threads", "set_num_threads", "threads"]

#: Accepted thread counts end here: an OpenMP runtime that cannot start a thread ends the process.
MAX_THREADS = 1024


@dataclass(frozen=True)
class Choice:
    """A thread count and what decided it."""

    count: int
    source: str


class _Block(NamedTuple):
    choice: Choice
    outer: _Block | None


_block: ContextVar[_Block | None] = ContextVar("pyconv.threads", default=None)
_process: Choice | None = None  # set_num_threads
_machine: Choice | None = None  # counted at the first use

# The dict behind os.environ: a variable that is not set costs 40 ns here, 700 ns there, and every
# convolution asks for two.
_environ: Any = getattr(os.environ, "_data", os.environ)
_encode: Any = getattr(os.environ, "encodekey", str)
_VARIABLES = tuple((name, _encode(name)) for name in ("PYCONV_NUM_THREADS", "OMP_NUM_THREADS"))
(_, _OURS), (_, _OPENMP) = _VARIABLES

_went_parallel = False  # this process has run a parallel region
_serial = False  # it was forked from one that had


class threads(contextlib.ContextDecorator):  # noqa: N801 - reads as a verb: with threads(2): ...
    """Limit the threads of pyconv calls in a ``with`` block, or in a decorated function.

    Blocks nest, and the innermost one counts. A block belongs to the thread or the asyncio task
    that entered it: threads started inside do not inherit it, other threads do not see it. It
    goes before `set_num_threads` and the environment; a call's own ``threads=`` goes before it.

    Parameters
    ----------
    count : int
        Number of threads, between 1 and 1024. Small problems use fewer.

    Raises
    ------
    TypeError, ValueError
        If `count` is not an integer in that range.

    Examples
    --------
    >>> import pyconv
    >>> with pyconv.threads(2):
    ...     pyconv.get_num_threads()
    2
    >>> @pyconv.threads(1)
    ... def serial():
    ...     return pyconv.get_num_threads()
    >>> serial()
    1
    """

    def __init__(self, count: int) -> None:
        self._choice = Choice(_checked("threads", "count", count), "threads()")

    def __enter__(self) -> None:
        # The blocks form a list in the context, not in this object: one object may be entered
        # by several threads at once, and again inside itself.
        _block.set(_Block(self._choice, _block.get()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block = _block.get()
        # None if a half-run generator is closed by a task that never entered the block.
        if block is not None:
            _block.set(block.outer)


def set_num_threads(count: int | None) -> None:
    """Set the number of threads for this process, whatever the environment says.

    Parameters
    ----------
    count : int or None
        Number of threads, between 1 and 1024. None returns to the environment and the machine,
        whose CPUs are counted anew.

    Raises
    ------
    TypeError, ValueError
        If `count` is neither None nor an integer in that range.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.set_num_threads(3)
    >>> pyconv.get_num_threads()
    3
    >>> pyconv.set_num_threads(None)
    """
    global _machine, _process
    if count is None:
        _process = _machine = None
    else:
        _process = Choice(_checked("set_num_threads", "count", count), "set_num_threads()")


def get_num_threads() -> int:
    """Return the number of threads that a call without ``threads=`` may use here and now.

    It is 1 in a process forked from one that had already run a convolution on several threads,
    whatever was asked for: GNU OpenMP would wait there for threads that a fork does not copy.

    Raises
    ------
    ValueError
        If ``PYCONV_NUM_THREADS`` or ``OMP_NUM_THREADS`` decides and is not a positive integer.
        (Of a list, as OpenMP allows, the first number counts; above 1024 is 1024; an empty
        variable counts as not set.)

    Examples
    --------
    >>> import pyconv
    >>> pyconv.get_num_threads() >= 1
    True
    """
    return resolve()


def resolve(threads: int | None = None, operator: str = "pyconv") -> int:
    """Return the number of threads for one call, given its ``threads=`` argument.

    `operator` is the name that an error message shows.
    """
    count = _default().count if threads is None else _checked(operator, "threads", threads)
    return 1 if _serial else count


def choice() -> Choice:
    """Return what `get_num_threads` returns, and what decided it."""
    if _serial:
        return Choice(1, "forked from a process that had run in parallel")
    return _default()


def note_parallel_region() -> None:
    """Record that this process is about to run on several threads (once is enough)."""
    global _went_parallel
    _went_parallel = True


def _after_fork_in_child() -> None:
    # GNU OpenMP's thread pool does not survive a fork (GCC bug 60035): the first parallel region
    # of such a child would hang. The child may also be given other CPUs than its parent.
    global _machine, _serial
    _machine = None
    _serial = _serial or _went_parallel


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _checked(operator: str, argument: str, count: Any) -> int:
    if type(count) is int and 1 <= count <= MAX_THREADS:
        return count
    return integer(operator, argument, count, minimum=1, maximum=MAX_THREADS)


def _default() -> Choice:
    """Return the choice of a call that brings no count; about 0.3 us."""
    global _machine
    block = _block.get()
    if block is not None:
        return block.choice
    if _process is not None:
        return _process
    if _OURS in _environ or _OPENMP in _environ:
        for name, key in _VARIABLES:
            value = _environ.get(key)
            if value:
                return _from_environment(name, value)
    machine = _machine
    if machine is None:
        machine = _machine = _count_cpus()
    return machine


@lru_cache(maxsize=8)
def _from_environment(name: str, value: str | bytes) -> Choice:
    text = os.fsdecode(value)
    first = text.split(",")[0].strip()
    if not (first.isascii() and first.isdecimal() and first.strip("0")):
        raise ValueError(
            f"the environment variable {name} must be a positive integer; got {text[:80]!r}"
        )
    # Nine digits are past the limit already; int() refuses to read thousands of them.
    return Choice(min(int(first.lstrip("0")[:9]), MAX_THREADS), name)


def _count_cpus() -> Choice:
    if hasattr(os, "sched_getaffinity"):
        count, source = len(os.sched_getaffinity(0)), "CPUs of the affinity mask"
    else:
        count, source = os.cpu_count() or 1, "CPUs of the machine"
    quota = _cgroup_quota()
    if quota is not None and math.ceil(quota) < count:
        count, source = max(1, math.ceil(quota)), f"control group quota of {quota:g} CPUs"
    return Choice(min(count, MAX_THREADS), source)


def _cgroup_quota(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return the CPUs that this process's control groups grant it; None if unlimited."""
    quotas: list[float] = []
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                for root in (mount, mount / "unified"):
                    quotas += _quotas(root, path, _quota_v2)
            elif "cpu" in controllers.split(","):
                quotas += _quotas(mount / controllers, path, _quota_v1)
    return min(quotas, default=None)


def _quotas(root: Path, path: str, read: Any) -> Iterator[float]:
    # Every ancestor limits its descendants. In a container the path may be the host's, of which
    # only the end, or nothing, exists here: a directory that is missing just says nothing.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts) + 1):
        with contextlib.suppress(OSError, ValueError):
            allowed, period = read(root.joinpath(*parts[:depth]))
            if allowed > 0 and period > 0:
                yield allowed / period


def _quota_v2(directory: Path) -> tuple[int, int]:
    allowed, period = (directory / "cpu.max").read_text().split()
    return int(allowed), int(period)  # "max" is a ValueError: no limit


def _quota_v1(directory: Path) -> tuple[int, int]:
    allowed = int((directory / "cpu.cfs_quota_us").read_text())  # -1: no limit
    return allowed, int((directory / "cpu.cfs_period_us").read_text())

"""pyconv._threads: how many threads a call may use."""

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import pyconv
from pyconv import _threads

PACKAGE_PARENT = str(Path(pyconv.__file__).parents[1])


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A process to which nobody has said anything about threads, on a machine with 6 CPUs."""
    monkeypatch.delenv("PYCONV_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_threads, "_process", None)
    monkeypatch.setattr(_threads, "_machine", None)
    monkeypatch.setattr(_threads, "_went_parallel", False)
    monkeypatch.setattr(_threads, "_serial", False)
    monkeypatch.setattr(_threads, "_count_cpus", lambda: _threads.Choice(6, "test"))


def run_python(code, *options, **environment):
    result = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": PACKAGE_PARENT, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_order(monkeypatch):
    assert pyconv.get_num_threads() == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert pyconv.get_num_threads() == 5
    monkeypatch.setenv("PYCONV_NUM_THREADS", "4")
    assert pyconv.get_num_threads() == 4
    pyconv.set_num_threads(3)
    assert pyconv.get_num_threads() == 3
    with pyconv.threads(2):
        assert pyconv.get_num_threads() == 2
        assert _threads.resolve(1) == 1
        assert _threads.resolve() == _threads.resolve(None) == 2
    assert pyconv.get_num_threads() == 3
    pyconv.set_num_threads(None)
    assert pyconv.get_num_threads() == 4


def test_choice_names_what_decided(monkeypatch):
    def source():
        return _threads.choice().source

    assert source() == "test"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert source() == "OMP_NUM_THREADS"
    pyconv.set_num_threads(3)
    assert source() == "set_num_threads()"
    with pyconv.threads(2):
        assert source() == "threads()"
    monkeypatch.setattr(_threads, "_serial", True)
    assert _threads.choice() == _threads.Choice(1, "forked from a process that had run in parallel")


# Environment


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4", 4),
        (" 4 ", 4),
        ("4,2", 4),
        ("4 , 2", 4),
        ("007", 7),
        ("1024", 1024),
        ("1025", 1024),
        ("9" * 5000, 1024),
        ("", 6),
    ],
)
@pytest.mark.parametrize("variable", ["PYCONV_NUM_THREADS", "OMP_NUM_THREADS"])
def test_environment(monkeypatch, variable, text, count):
    monkeypatch.setenv(variable, text)
    assert pyconv.get_num_threads() == count


@pytest.mark.parametrize("text", ["0", "00", "-1", "two", "2.0", "1e3", ",2", " ", "²", "1_0"])
@pytest.mark.parametrize("variable", ["PYCONV_NUM_THREADS", "OMP_NUM_THREADS"])
def test_invalid_environment(monkeypatch, variable, text):
    monkeypatch.setenv(variable, text)
    for _ in range(2):  # every time, not only the first
        with pytest.raises(ValueError, match="must be a positive integer") as caught:
            pyconv.get_num_threads()
        assert str(caught.value) == (
            f"the environment variable {variable} must be a positive integer; got {text!r}"
        )
    # It matters only where it decides.
    assert _threads.resolve(2) == 2
    with pyconv.threads(3):
        assert pyconv.get_num_threads() == 3


def test_invalid_environment_does_not_break_the_import():
    code = """
    import pyconv, pyconv._threads
    try:
        pyconv.get_num_threads()
    except ValueError as error:
        print("PYCONV_NUM_THREADS" in str(error))
    """
    assert run_python(code, PYCONV_NUM_THREADS="many") == ["True"]


def test_environment_is_read_from_the_real_one():
    code = "import pyconv; print(pyconv.get_num_threads())"
    assert run_python(code, PYCONV_NUM_THREADS="3", OMP_NUM_THREADS="2") == ["3"]
    assert run_python(code, PYCONV_NUM_THREADS="", OMP_NUM_THREADS="2,1") == ["2"]


# Values


@pytest.mark.parametrize("count", [1, 1024, np.int64(7), np.uint8(7)])
def test_integers_are_accepted(count):
    with pyconv.threads(count):
        assert pyconv.get_num_threads() == count
        assert type(pyconv.get_num_threads()) is int
    assert _threads.resolve(count) == count
    assert type(_threads.resolve(count)) is int


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (1025, ValueError),
        (2**64, ValueError),
        (True, TypeError),
        (2.0, TypeError),
        ("2", TypeError),
        ([2], TypeError),
    ],
)
def test_everything_else_is_refused_at_once(count, error):
    with pytest.raises(error, match=r"^threads: count must be an integer .*; got"):
        pyconv.threads(count)
    with pytest.raises(error, match=r"^set_num_threads: count must be an integer .*; got"):
        pyconv.set_num_threads(count)
    with pytest.raises(error, match=r"^dilated: threads must be an integer .*; got"):
        _threads.resolve(count, "dilated")
    assert pyconv.get_num_threads() == 6


def test_messages():
    with pytest.raises(ValueError, match="threads") as caught:
        pyconv.threads(0)
    assert str(caught.value) == "threads: count must be an integer >= 1; got 0"
    with pytest.raises(ValueError, match="threads") as caught:
        _threads.resolve(5000, "grouped")
    assert str(caught.value) == "grouped: threads must be an integer from 1 to 1024; got 5000"


# Blocks


def test_blocks_nest_and_end_on_exceptions():
    with pyconv.threads(2):
        with pytest.raises(ZeroDivisionError), pyconv.threads(3):
            raise ZeroDivisionError
        with pyconv.threads(3):
            assert pyconv.get_num_threads() == 3
        assert pyconv.get_num_threads() == 2
    assert pyconv.get_num_threads() == 6


def test_a_block_may_be_entered_again():
    block = pyconv.threads(2)
    for _ in range(2):
        with block, pyconv.threads(3), block:
            assert pyconv.get_num_threads() == 2
        assert pyconv.get_num_threads() == 6


def test_decorator():
    @pyconv.threads(2)
    def inner(depth):
        """Docstring."""
        return inner(depth - 1) if depth else pyconv.get_num_threads()

    assert inner.__doc__ == "Docstring."
    assert inner(3) == 2
    assert pyconv.get_num_threads() == 6
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(inner, [5] * 64)) == [2] * 64
        assert list(pool.map(lambda _: pyconv.get_num_threads(), range(64))) == [6] * 64


def test_a_block_belongs_to_its_thread():
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pyconv.threads(2):
        assert pool.submit(pyconv.get_num_threads).result() == 6
        assert pyconv.get_num_threads() == 2


def test_a_block_belongs_to_its_task():
    async def task(count):
        with pyconv.threads(count):
            for _ in range(5):
                await asyncio.sleep(0)
                assert pyconv.get_num_threads() == count
        await asyncio.sleep(0)
        return pyconv.get_num_threads()

    async def main():
        with pyconv.threads(5):
            return await asyncio.gather(*map(task, (1, 2, 3, 4)))

    assert asyncio.run(main()) == [5] * 4


def test_set_num_threads_is_for_every_thread():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pyconv.set_num_threads(4)
        assert pool.submit(pyconv.get_num_threads).result() == 4


# The machine


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that counts the CPUs of a described machine."""
    monkeypatch.undo()
    read = _threads._cgroup_quota

    def count(*, cpus, membership="", files=None):
        for name, text in (files or {}).items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / "membership").write_text(membership)
        quota = read(tmp_path / "membership", tmp_path / "mount")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cpus), raising=False)
        monkeypatch.setattr(_threads, "_cgroup_quota", lambda: quota)
        return _threads._count_cpus().count

    return count


def test_affinity(machine):
    assert machine(cpus=5) == 5
    assert machine(cpus=5000) == 1024


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("max 100000", 16),
        ("400000 100000", 4),
        ("250000 100000", 3),  # rounded up
        ("1000 100000", 1),
        ("9900000 100000", 16),
        ("0 100000", 16),
        ("nonsense", 16),
        ("", 16),
    ],
)
def test_cgroup_v2(machine, quota, count):
    files = {"user/app/cpu.max": quota + "\n"}
    assert machine(cpus=16, membership="0::/user/app\n", files=files) == count


def test_cgroup_v2_ancestors_count(machine):
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "500000 100000"}
    assert machine(cpus=16, membership="0::/a/b", files=files) == 3


def test_cgroup_v2_in_a_container(machine):
    # The path is the host's, or lies outside the namespace; the mount is the container's group.
    files = {"cpu.max": "200000 100000"}
    assert machine(cpus=16, membership="0::/docker/0123", files=files) == 2
    assert machine(cpus=16, membership="0::/../../other", files=files) == 2


@pytest.mark.parametrize(("quota", "count"), [("-1", 16), ("150000", 3), ("50000", 1)])
def test_cgroup_v1(machine, quota, count):
    membership = "5:memory:/app\n4:cpu,cpuacct:/app\n3:cpuset:/\n0::/system\n"
    files = {
        "cpu,cpuacct/app/cpu.cfs_quota_us": quota,
        "cpu,cpuacct/app/cpu.cfs_period_us": "50000",
    }
    assert machine(cpus=16, membership=membership, files=files) == count


def test_without_affinity_or_cgroups(machine, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _threads._cgroup_quota(tmp_path / "none", tmp_path / "none") is None
    assert _threads._count_cpus().count == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_set_num_threads_none_counts_the_cpus_again():
    code = """
    import os, pyconv
    before = pyconv.get_num_threads()
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    print(before == pyconv.get_num_threads())
    pyconv.set_num_threads(None)
    print(pyconv.get_num_threads())
    """
    environment = dict.fromkeys(("PYCONV_NUM_THREADS", "OMP_NUM_THREADS"), "")
    assert run_python(code, **environment) == ["True", "1"]


# Fork

FORK = """
import multiprocessing
import pyconv
from pyconv import _threads

def look():
    with pyconv.threads(3):
        return pyconv.get_num_threads(), _threads.resolve(8), _threads.choice().source

def child(queue, depth):
    if depth:
        return start(queue, depth - 1)
    queue.put(look())

def start(queue, depth):
    process = multiprocessing.get_context("fork").Process(target=child, args=(queue, depth))
    process.start()
    process.join()

def fork(depth=0):
    queue = multiprocessing.get_context("fork").SimpleQueue()
    start(queue, depth)
    return queue.get()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    checks = """
serial = (1, 1, "forked from a process that had run in parallel")
assert fork() == (3, 8, "threads()")
assert fork(depth=1) == (3, 8, "threads()")
_threads.note_parallel_region()
assert fork() == serial
assert fork(depth=1) == serial
assert look() == (3, 8, "threads()")
"""
    # Python warns of forks in a process with threads, and NumPy's BLAS has some.
    run_python(FORK + checks, "-Wignore::DeprecationWarning")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_arguments_are_still_checked_after_a_fork(monkeypatch):
    monkeypatch.setattr(_threads, "_serial", True)
    assert _threads.resolve(8) == 1
    with pytest.raises(ValueError, match="threads must be"):
        _threads.resolve(0)

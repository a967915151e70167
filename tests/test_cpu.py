"""Which instruction set is used, and how the environment changes that."""

import os
import subprocess
import sys

import pytest

from pyconv._kernels import _cpu

ORDER = ("avx512", "avx2", "neon", "base")
FLAGS = {"avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "avx2": {"avx2", "fma"}}
PICKED = "from pyconv._kernels import _cpu; print(_cpu.config()['picked'])"


def picked(disabled):
    env = {**os.environ, "PYCONV_DISABLE_CPU": disabled}
    return subprocess.run([sys.executable, "-c", PICKED], env=env, capture_output=True, text=True)


def test_the_best_supported_one_is_picked():
    config = _cpu.config()
    usable = [name for name in config["supported"] if name not in config["disabled"]]
    assert config["picked"] == usable[0]
    assert list(config["built"]) == [name for name in ORDER if name in config["built"]]
    assert config["built"][-1] == config["supported"][-1] == "base"


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="the system does not list flags")
def test_none_that_this_machine_has_is_missing():
    with open("/proc/cpuinfo") as file:
        line = next((line for line in file if line.startswith("flags")), "")
    has = {name for name, flags in FLAGS.items() if flags <= set(line.split())}
    assert {name for name in _cpu.supported() if name in FLAGS} == has


@pytest.mark.parametrize("count", range(1, len(_cpu.supported())))
def test_the_better_ones_can_be_disabled(count):
    disabled = _cpu.supported()[:count]
    run = picked(",".join(disabled))
    assert run.stdout.strip() == _cpu.supported()[count]


@pytest.mark.parametrize("disabled", ["", " , ", "neon", " AVX512 ,avx2, neon"])
def test_names_are_read_leniently(disabled):
    assert picked(disabled).returncode == 0


@pytest.mark.parametrize("disabled", ["avx", "avx2;avx512", "base", "sse2", "avx2,nonsense"])
def test_unknown_names_are_refused(disabled):
    run = picked(disabled)
    assert run.returncode
    assert "ValueError: PYCONV_DISABLE_CPU must name instruction sets out of" in run.stderr
    assert repr(disabled.split(",")[-1]) in run.stderr


def test_use_refuses_what_is_not_supported():
    before = _cpu.config()["picked"]
    with pytest.raises(ValueError, match="'mmx' is not one of"):
        _cpu.use("mmx")
    assert _cpu.use(before) == before

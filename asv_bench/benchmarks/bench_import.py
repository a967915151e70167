"""What pyconv costs a program that has NumPy already: seconds at import, bytes on disk."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pyconv

from ._base import QUICK

PROGRAM = """
import time
import numpy
start = time.perf_counter()
import pyconv
print(time.perf_counter() - start)
"""


def track_import_time() -> float:
    """Median of several fresh interpreters, in seconds, without their start and NumPy's."""
    command = [sys.executable, "-c", PROGRAM]
    times = [float(subprocess.check_output(command)) for _ in range(1 if QUICK else 9)]
    return statistics.median(times)


track_import_time.unit = "seconds"


def track_library_size() -> int:
    """Bytes of the compiled modules and of the Python modules, sources and caches left out."""
    files = Path(pyconv.__file__).parent.rglob("*")
    return sum(path.stat().st_size for path in files if path.suffix in (".so", ".pyd", ".py"))


track_library_size.unit = "bytes"

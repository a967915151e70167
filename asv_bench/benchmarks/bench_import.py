"""What `import pyconv` costs a program that has NumPy already."""

from __future__ import annotations

import statistics
import subprocess
import sys

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
    times = [float(subprocess.check_output(command)) for _ in range(9)]
    return statistics.median(times)


track_import_time.unit = "seconds"

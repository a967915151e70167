"""See to it that the tests import the installed package, in their subprocesses too."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from pathlib import Path

import pytest

ADVICE = 'install it and start the tests with `pytest`: pip install ".[test]" && pytest'


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop before collection, with one sentence, where every test would fail on its import."""
    # Python programs that a test starts in this folder would find the source tree first.
    os.environ["PYTHONSAFEPATH"] = "1"
    spec = importlib.util.find_spec("pyconv")
    if spec is None or spec.origin is None:
        pytest.exit(f"pyconv is not installed: {ADVICE}", returncode=4)
    kernels = Path(spec.origin).parent / "_kernels"
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    if not any((kernels / f"_cpu{suffix}").exists() for suffix in suffixes):
        pytest.exit(f"the kernels in {kernels} are not compiled: {ADVICE}", returncode=4)

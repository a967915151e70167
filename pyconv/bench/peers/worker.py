"""One library in a process: prepares layers and times them, as told on standard input.

    python worker.py NAME THREADS

It may import the libraries of its Python and NumPy, and must not need pyconv. Commands and answers
are lines of JSON. Whatever a library prints goes to stderr. Thread counts that libraries read from
the environment are set by whoever starts the process.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {
    "pyconv": ("with_pyconv", "plan"),
    "pyconv_call": ("with_pyconv", "call"),
    "torch": ("with_torch", "channels_first"),
    "torch_cl": ("with_torch", "channels_last"),
    "ort": ("with_onnxruntime", ""),
    "openvino": ("with_openvino", ""),
    "ncnn": ("with_ncnn", ""),
    "ndimage": ("with_scipy", "ndimage"),
    "oaconvolve": ("with_scipy", "oaconvolve"),
}
"""Modules next to this one, and the form in which they are asked to prepare a layer."""

SAMPLE_SECONDS = 1e-4
"""Shorter calls are timed several at once: the clock takes 0.1 us itself."""


def measure(run: Callable[[], object], seconds: float) -> dict[str, float]:
    """Run a function again and again for a while; return the seconds of one run.

    Returns
    -------
    dict
        ``median`` and ``fastest`` of the samples, and ``calls``, how many runs there were.
    """
    run()  # what other processes have pushed out of the caches comes back
    clock = time.perf_counter
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        run()
        single = clock() - begin
        each = max(1, round(SAMPLE_SECONDS / max(single, 1e-7)))
        samples = [single] if each == 1 else []
        end = begin + seconds
        while not samples or clock() < end:
            begin = clock()
            for _ in range(each):
                run()
            samples.append((clock() - begin) / each)
    finally:
        gc.enable()
    median, fastest = statistics.median(samples), min(samples)
    return {"median": median, "fastest": fastest, "calls": each * len(samples)}


class Worker:
    """What the process remembers between commands: a library, and the layer it has prepared."""

    def __init__(self, name: str, threads: int) -> None:
        file, self.form = NAMES[name]
        self.threads = threads
        self.foreign = not name.startswith("pyconv")
        self.library = _load(file)
        self.run: Callable[[], object] | None = None

    def hello(self) -> dict[str, Any]:
        """Import the library; say which version it is."""
        try:
            return {"status": "ok", "version": self.library.version()}
        except ImportError as error:
            return {"status": "missing", "note": _one_line(error)}

    def prepare(self, layer: dict[str, Any], files: dict[str, Any], out: str) -> dict[str, Any]:
        """Prepare a layer, run it once and save the result for comparison."""
        self.run = None  # frees the layer before
        if self.foreign and layer["kind"] is None:
            return {"status": "unsupported", "note": "has no such operator"}
        arrays = {name: _read(file) for name, file in files.items()}
        try:
            self.run, fetch = self.library.prepare(layer, arrays, self.threads, self.form)
            found = fetch()
            np.savez(out, **(found if isinstance(found, dict) else {"y": found}))
        except NotImplementedError as error:
            return {"status": "unsupported", "note": _one_line(error)}
        return {"status": "ok"}

    def measure(self, seconds: float) -> dict[str, Any]:
        """Time the layer."""
        if self.run is None:
            raise RuntimeError("no layer has been prepared")
        return {"status": "ok", **measure(self.run, seconds)}


def _load(name: str) -> Any:
    """Import a file next to this one, whether or not that is in a package here."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read(file: Any) -> Any:
    if file is None:
        return None
    return tuple(map(np.load, file)) if isinstance(file, list) else np.load(file)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def main(name: str, threads: int) -> None:
    """Answer commands until standard input ends."""
    # A descriptor of our own for the answers: libraries print to what is called stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(function: Callable[..., dict[str, Any]], **arguments: Any) -> None:
        try:
            result = function(**arguments)
        except Exception as error:
            result = {"status": "failed", "note": f"{type(error).__name__}: {_one_line(error)}"}
        print(json.dumps(result), file=answers, flush=True)

    worker = Worker(name, threads)
    answer(worker.hello)
    for line in sys.stdin:
        command = json.loads(line)
        answer(getattr(worker, command.pop("do")), **command)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

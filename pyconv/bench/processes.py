"""An implementation in a process of its own: started, told what to do, ended.

Assumes that the program answers every line with a line, as `pyconv.bench.peers.worker` does; that
it crashes, ends or falls silent is expected.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyconv
from pyconv.bench.peers import worker

PROGRAM = str(Path(worker.__file__))
PATIENCE = 300.0
"""Seconds after which a process that does not answer is ended."""

# Each library reads its own; none of these changes how it waits while a layer runs.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYCONV_NUM_THREADS",
)  # fmt: skip


class WorkerError(Exception):
    """A process has ended, or was ended because it did not answer."""


class Process:
    """An implementation in a process of its own; started again after it has died.

    Parameters
    ----------
    name : str
        One of `worker.NAMES`.
    threads : int
        Threads to use.
    python : str
        The interpreter to run it by.
    folder : Path
        Where its messages go.
    program : str, optional
        The file to run.
    """

    def __init__(
        self, name: str, threads: int, python: str, folder: Path, program: str = PROGRAM
    ) -> None:
        self.name, self.threads = name, threads
        self._command = [python, program, name, str(threads)]
        self._messages = folder / f"{name}.stderr"
        self._process: subprocess.Popen[bytes] | None = None
        self._foreign = python != sys.executable
        self.version = ""

    def start(self) -> dict[str, Any]:
        """Start the process; return what it says of its library."""
        with open(self._messages, "wb") as messages:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                bufsize=0,
                start_new_session=True,  # so that whatever it starts can be ended with it
                env=self._environment(),
            )
        hello = self._answer()
        self.version = hello.get("version", "")
        return hello

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(self.threads))}
        environment["KMP_BLOCKTIME"] = "5"  # ms that LLVM's OpenMP spins, as GNU's does; else 200
        if self._foreign:  # the modules of this Python are not for that one
            for name in ("PYTHONPATH", "PYTHONHOME"):
                environment.pop(name, None)
        else:
            here = str(Path(pyconv.__file__).parents[1])
            path = [here, *filter(None, [environment.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(path)
        return environment

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command, starting the process if need be, and wait for the answer."""
        if self._process is None:
            hello = self.start()
            if hello["status"] != "ok":
                return hello
        assert self._process is not None
        assert self._process.stdin is not None
        line = json.dumps({"do": do, **arguments}) + "\n"
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(line.encode())
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe, line = self._process.stdout, b""
        end = time.monotonic() + PATIENCE
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([pipe], [], [], max(0, end - time.monotonic()))
            part = os.read(pipe.fileno(), 65536) if ready else b""
            if not part:
                why = self._end() if ready else f"gave no answer for {PATIENCE:g} s"
                self.stop()
                raise WorkerError(why)
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> str:
        """Say how the process has ended."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code < 0:
            return f"crashed with {signal.Signals(-code).name}"
        lines = self._messages.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"ended with status {code}" + (f": {last.strip()}" if last else "")

    def stop(self) -> None:
        """End the process."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

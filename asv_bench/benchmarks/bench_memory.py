"""What a call takes beyond its arguments and its result, of which it promises to be bounded.

`peakmem_call` is the peak of a process that calls an operator on a large image with 4 MiB of
workspace, `peakmem_baseline` that of the same process without the call: what lies between them is
workspace, code and tables. `track_workspace` is that difference measured in one process, and fails
if it is not bounded.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np

from ._base import Call
from ._shapes import MEMORY, MEMORY_BUDGET, SMALL

SLACK = 2 * 2**20
"""Tables and what the allocator keeps, of a call that is not the first one."""


def resident(field: str) -> int:
    """Return a figure of this process, such as its peak ("VmHWM"), in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise NotImplementedError(f"this system does not tell {field}")


class Workspace:
    params = [
        "standard", "pointwise", "grouped", "depthwise", "depthwise_separable",
        "spatially_separable", "dilated", "transposed", "deformable", "sampled",
    ]  # fmt: skip
    param_names = ("operator",)

    def setup(self, operator: str) -> None:
        self.call = Call(operator, MEMORY[operator], max_workspace=MEMORY_BUDGET)
        shapes = [array.shape for array in self.call.arrays.values()]
        result = self.call.op.output_shape(*shapes, **MEMORY[operator][1])
        self.result = np.ones(result, np.float32)
        Call(operator, SMALL[operator])()  # the code is there afterwards

    def peakmem_call(self, operator: str) -> None:
        self.call(out=self.result)

    def peakmem_baseline(self, operator: str) -> None:
        pass

    def track_workspace(self, operator: str) -> int:
        gc.collect()  # garbage that went away meanwhile would make room for what is measured
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
        except OSError:
            raise NotImplementedError("this system does not reset the peak") from None
        before = resident("VmRSS")
        self.peakmem_call(operator)
        grown = max(0, resident("VmHWM") - before)
        if grown > MEMORY_BUDGET + SLACK:
            raise AssertionError(f"{grown} bytes were taken where {MEMORY_BUDGET} were allowed")
        return grown

    track_workspace.unit = "bytes"

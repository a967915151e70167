"""pyconv's plan beside each other library that is installed, by the machinery of `pyconv bench`.

Each library has a process of its own and its turn in every round; results are compared with
pyconv's before anything is timed. PYCONV_PEERS_PYTHON names a Python that has the libraries, if
that is not the one that runs the benchmarks.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ._base import layer_of


def as_elsewhere(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes with 1x1 weights as other libraries have them: (64, 256, 1, 1)."""
    ones = (1,) * (len(shapes["x"]) - 2)
    return {k: (*v, *ones) if len(v) == 2 else v for k, v in shapes.items()}


class Peers:
    params = (
        [
            "standard/r50_3x3_28",
            "standard/r50_7x7s2_224",
            "pointwise/r50_1x1_56",
            "grouped/resnext_g32_56",
            "depthwise/mobilenet_3x3_112",
            "depthwise_separable/mobilenet_14",
            "dilated/aspp_r12_33",
            "transposed/dcgan_4x4s2_8",
            "deformable/dcn_v2_28",
        ],
        ["torch", "torch_cl", "ort", "openvino", "ncnn"],  # torch_cl: channels last
    )
    param_names = ("layer", "peer")

    def setup_cache(self) -> dict[str, dict[str, Any]]:
        """Measure all of them; return the seconds of each, or why not, by layer and library."""
        try:
            from pyconv.bench import layers, machine, runner
        except ImportError:
            return {}
        python = os.environ.get("PYCONV_PEERS_PYTHON", sys.executable)
        chosen = []
        for name in self.params[0]:
            operator, (shapes, params) = layer_of(name)
            chosen.append(layers.Layer(name, "peers", operator, as_elsewhere(shapes), params))
        settings = runner.Settings(rounds=5, seconds=0.05)
        with runner.Runner(["pyconv", *self.params[1]], 1, settings, python) as run:
            if set(run.versions) == {"pyconv"}:
                return {}
            limits = machine.limits([1], ["float32"])[1, "float32"]
            found = run.run(chosen, {"float32": limits}, lambda step: None)
            return {
                result.layer.name: {
                    name: result.seconds(name) or f"{timing.status}: {timing.note}"
                    for name, timing in result.timings.items()
                }
                for result in found
            }

    setup_cache.timeout = 1200

    def setup(self, times: dict[str, dict[str, Any]], layer: str, peer: str) -> None:
        found = times.get(layer, {}).get(peer, "missing: not installed")
        if isinstance(found, str):
            skipped = found.startswith(("missing:", "unsupported:"))
            raise (NotImplementedError if skipped else RuntimeError)(f"{peer}: {found}")

    def track_ratio(self, times: dict[str, dict[str, Any]], layer: str, peer: str) -> float:
        """The other library's time over pyconv's: above 1, pyconv is faster."""
        return times[layer][peer] / times[layer]["pyconv"]

    track_ratio.unit = "times pyconv's time"

"""Instructions of a call, exact: the second track beside the times (see `_instructions`)."""

from __future__ import annotations

from . import _instructions


class Instructions:
    params = [
        "standard", "pointwise", "grouped", "depthwise", "depthwise_separable",
        "spatially_separable", "dilated", "transposed", "deformable", "sampled",
    ]  # fmt: skip
    param_names = ("operator",)

    def setup_cache(self) -> dict[str, int]:
        """Count all of them in one process: valgrind takes longest for its start."""
        if not _instructions.available():
            return {}
        names = [f"{kind}/{operator}" for operator in self.params for kind in _instructions.KINDS]
        return _instructions.counts(names)

    setup_cache.timeout = 600

    def setup(self, counts: dict[str, int], operator: str) -> None:
        if not counts:
            raise NotImplementedError("valgrind is not installed")

    def track_call(self, counts: dict[str, int], operator: str) -> int:
        return counts[f"call/{operator}"]

    def track_plan(self, counts: dict[str, int], operator: str) -> int:
        return counts[f"plan/{operator}"]

    def track_all(self, counts: dict[str, int], operator: str) -> int:
        return counts[f"all/{operator}"]

    track_call.unit = track_plan.unit = track_all.unit = "instructions"

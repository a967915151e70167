"""Benchmarks of the operator mirrored against its own past."""

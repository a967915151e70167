"""Benchmarks of pyconv against its own past; `asv_bench/asv.conf.json` says how they run."""

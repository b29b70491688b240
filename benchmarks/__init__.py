"""Benchmarks: this package beside its peers, in one process and one run."""

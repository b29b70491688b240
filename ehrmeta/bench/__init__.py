"""Benchmarks: this package beside its peers, in one process and one run."""

from ehrmeta.bench.cache import Cache
from ehrmeta.bench.memory import measure_training_memory
from ehrmeta.bench.record import Record, write_records
from ehrmeta.bench.speed import run_speed

__all__ = ["Cache", "Record", "measure_training_memory", "run_speed", "write_records"]

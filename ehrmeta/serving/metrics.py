"""Counts and times of a server, in the text form of Prometheus."""

import time
from collections import Counter
from threading import Lock

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class Histogram:
    """Counts of values up to each bound.

    Examples
    --------
    >>> histogram = Histogram("batch_size", "Requests of a batch.", (1, 2))
    >>> histogram.add(2)
    >>> histogram.lines()[2:]
    ['batch_size_bucket{le="1"} 0', 'batch_size_bucket{le="2"} 1', 'batch_size_bucket{le="+Inf"} 1',
    'batch_size_sum 2', 'batch_size_count 1']
    """

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0

    def add(self, value: float) -> None:
        """Count a value."""
        place = sum(value > bound for bound in self.bounds)
        self.counts[place] += 1
        self.total += value

    def lines(self) -> list[str]:
        """The text form."""
        lines = [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} histogram"]
        so_far = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            so_far += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {so_far}')
        return [*lines, f"{self.name}_sum {self.total:g}", f"{self.name}_count {so_far}"]


class Metrics:
    """What a server counts: never a value of a request.

    Parameters
    ----------
    digest : str
        SHA-256 of the model's file.
    """

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.by_status: Counter[int] = Counter()
        self.rows: Counter[str] = Counter()
        self.seconds = Histogram(
            "ehrmeta_request_seconds", "Time of a request for predictions.", _SECONDS
        )
        self.batches = Histogram("ehrmeta_batch_requests", "Requests computed together.", _BATCH)
        self._lock = Lock()

    def add_request(self, status: int, seconds: float, n_support: int, n_query: int) -> None:
        """Count a request for predictions."""
        with self._lock:
            self.by_status[status] += 1
            self.rows["support"] += n_support
            self.rows["query"] += n_query
            self.seconds.add(seconds)

    def add_batch(self, n_requests: int) -> None:
        """Count a batch."""
        with self._lock:
            self.batches.add(n_requests)

    def text(self, waiting: int) -> str:
        """All metrics; `waiting` requests wait for their batch."""
        with self._lock:
            lines = [
                "# HELP ehrmeta_model_info The model that is served.",
                "# TYPE ehrmeta_model_info gauge",
                f'ehrmeta_model_info{{sha256="{self.digest}"}} 1',
                "# HELP ehrmeta_requests_total Requests for predictions by status.",
                "# TYPE ehrmeta_requests_total counter",
                *(
                    f'ehrmeta_requests_total{{status="{status}"}} {count}'
                    for status, count in sorted(self.by_status.items())
                ),
                "# HELP ehrmeta_rows_total Rows of requests that were answered.",
                "# TYPE ehrmeta_rows_total counter",
                *(
                    f'ehrmeta_rows_total{{kind="{kind}"}} {count}'
                    for kind, count in sorted(self.rows.items())
                ),
                "# HELP process_cpu_seconds_total User and system CPU time of the process.",
                "# TYPE process_cpu_seconds_total counter",
                f"process_cpu_seconds_total {time.process_time():.4f}",
                "# HELP ehrmeta_waiting_requests Requests that wait for their batch.",
                "# TYPE ehrmeta_waiting_requests gauge",
                f"ehrmeta_waiting_requests {waiting}",
                *self.seconds.lines(),
                *self.batches.lines(),
            ]
        return "\n".join(lines) + "\n"

"""Suite ``serving``: CPU time and latency of ``ehrmeta serve``, and rows per second of scoring.

A model with default settings is fitted to simulated visits. A server in a process of its own
answers requests of one patient: five visits to adapt to, three to predict. At saturation 32 clients
each send a request once the last is answered; at half load requests arrive at random at half that
rate.
"""

import asyncio
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from benchmarks.suite.cells import Run
from benchmarks.suite.command import suite
from benchmarks.suite.record import Record, number, text_table
from ehrmeta import MetaRegressor, Table
from ehrmeta.serving import score_folder

SUITE, CASE = "serving", "one patient, 5 visits and 3 to predict"
N_CLIENTS = 32
CPU, P50, P99, RATE = "cpu_ms", "p50_ms", "p99_ms", "requests_per_second"
ROWS = "rows_per_cpu_second"
Answered = tuple[float, list[float]]  # seconds in all, and of each request


@suite()
def serving(run: Run) -> list[Record]:
    """Measure CPU per request, latency at half load, and rows per second of scoring.

    \b
    Example:
        python -m benchmarks serving --json serving.json
    """
    n_tasks, n_requests, n_parts = (200, 300, 1) if run.quick else (2000, 5000, 4)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name, "model.ehrmeta")
        fit_model(n_tasks).save(model)
        records = measure_server(model, n_requests)
        records += measure_scoring(model, Path(name), n_parts, n_tasks)
    run.show(serving_table(records))
    return records


def serving_table(records: list[Record]) -> str:
    """A row per load, and one of scoring."""
    values = {(r.method, r.metric): r.value for r in records}
    loads = ("saturation", "half load")
    heading = ["load", "requests/s", "server CPU ms", "p50 ms", "p99 ms"]
    rows = [[load, *(number(values[load, m]) for m in (RATE, CPU, P50, P99))] for load in loads]
    scored = number(values["score_folder", ROWS])
    return f"{text_table(heading, rows)}\n\nscoring: {scored} rows per second of CPU"


def visits(n_tasks: int, n_visits: int, seed: int) -> pd.DataFrame:
    """Simulated visits with a random intercept and slope per patient."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), n_visits)
    day = np.sort(rng.uniform(0, 3650, (n_tasks, n_visits)), 1).ravel()
    age, sex = rng.normal(60, 10, n_tasks)[task], rng.integers(0, 2, n_tasks)[task]
    own, slope = rng.normal(0, 8, n_tasks)[task], rng.normal(0, 0.002, n_tasks)[task]
    y = 50 + 0.1 * (age - 60) + 3 * sex + own + slope * day + rng.normal(0, 5, len(task))
    alt = rng.lognormal(3, 0.4, len(task))
    columns = {"patient": task.astype(str), "day": day, "age": age, "sex": sex, "alt": alt}
    return pd.DataFrame({**columns, "hdl": y})


def fit_model(n_tasks: int) -> MetaRegressor:
    """The default model of such patients, with 20 visits each."""
    roles: dict[str, Any] = {"task": "patient", "time": "day", "outcome": "hdl"}
    table = Table.from_frame(visits(n_tasks, 20, 0), measured=["alt"], **roles)
    model = MetaRegressor(max_steps=100, verbose=False, random_state=0)
    return model.fit(table.X, table.y, groups=table.groups, time=table.time)


def measure_scoring(model: Path, folder: Path, n_parts: int, n_tasks: int) -> list[Record]:
    """Rows per second of CPU of `score_folder`, with reading and writing."""
    source, out = folder / "in", folder / "out"
    source.mkdir()
    for part in range(n_parts):
        frame = visits(5 * n_tasks, 20, part + 1).assign(
            patient=lambda rows, part=part: f"{part}-" + rows["patient"]
        )
        frame["hdl"] = frame["hdl"].mask(frame.groupby("patient").cumcount() >= 10)
        frame.to_parquet(source / f"{part}.parquet", index=False)
    cpu = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = score_folder(model, source, out)
    rate = scores.n_rows / (time.process_time() - cpu)
    return [Record(SUITE, "folder", "score_folder", ROWS, rate, n_tasks=5 * n_tasks * n_parts)]


def measure_server(model: Path, n_requests: int) -> list[Record]:
    """Loads of a server in another process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ehrmeta", "serve", str(model), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        try:
            return asyncio.run(_measure(port, n_requests))
        finally:
            server.terminate()


async def _measure(port: int, n_requests: int) -> list[Record]:
    bodies = _bodies(200)
    for _ in range(600):
        try:
            await _cpu_seconds(port)
            break
        except OSError:
            await asyncio.sleep(0.1)
    await _saturated(port, bodies, n_requests // 10)  # warm
    records, rate = [], 0.0
    for load in ("saturation", "half load"):
        cpu = await _cpu_seconds(port)
        work: Coroutine[Any, Any, Answered] = (
            _saturated(port, bodies, n_requests)
            if load == "saturation"
            else _arriving(port, bodies, n_requests, rate / 2)
        )
        seconds, each = await work
        cpu = await _cpu_seconds(port) - cpu
        rate = n_requests / seconds
        values = {RATE: rate, CPU: 1e3 * cpu / n_requests}
        values |= {
            P50: 1e3 * float(np.quantile(each, 0.5)),
            P99: 1e3 * float(np.quantile(each, 0.99)),
        }
        record = partial(Record, SUITE, CASE, load, n_tasks=n_requests, seconds=seconds)
        records += [record(metric, float(value)) for metric, value in values.items()]
    return records


def _bodies(n_tasks: int) -> list[bytes]:
    """Requests of one patient each."""
    frame, bodies = visits(n_tasks, 8, 99), []
    for _, rows in frame.groupby("patient"):
        support = rows[:5].to_dict("records")
        query = rows[5:].drop(columns=["hdl", "alt"]).to_dict("records")
        bodies.append(json.dumps({"support": support, "query": query}).encode())
    return bodies


@dataclass
class _Client:
    """A connection that is kept."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int) -> Self:
        """A connection to this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def close(self) -> None:
        """End the connection."""
        self.writer.close()
        await self.writer.wait_closed()

    async def send(self, path: str, body: bytes | None = None) -> bytes:
        """The content of an answer of status 200."""
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: localhost\r\n"
        self.writer.write(f"{head}content-length: {len(body or b'')}\r\n\r\n".encode())
        self.writer.write(body or b"")
        answer = await self.reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", answer)
        content = await self.reader.readexactly(int(size[1]) if size else 0)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {answer[:40]!r}")
        return content


async def _cpu_seconds(port: int) -> float:
    """CPU time of the server, user and system."""
    client = await _Client.connect(port)
    text = (await client.send("/metrics")).decode()
    await client.close()
    found = re.search(r"^process_cpu_seconds_total (\S+)", text, re.MULTILINE)
    return float(found[1]) if found else float("nan")


async def _saturated(port: int, bodies: list[bytes], n_requests: int) -> Answered:
    """Clients that each send a request once the last is answered."""
    each: list[float] = []
    waiting = iter(range(n_requests))

    async def client() -> None:
        connection = await _Client.connect(port)
        for i in waiting:
            started = time.perf_counter()
            await connection.send("/predict", bodies[i % len(bodies)])
            each.append(time.perf_counter() - started)
        await connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(N_CLIENTS)))
    return time.perf_counter() - started, each


async def _arriving(port: int, bodies: list[bytes], n_requests: int, rate: float) -> Answered:
    """Requests that arrive at random; a latency counts from the arrival."""
    free: asyncio.Queue[_Client] = asyncio.Queue()
    for _ in range(2 * N_CLIENTS):
        free.put_nowait(await _Client.connect(port))
    arrivals = np.cumsum(np.random.default_rng(0).exponential(1.0 / rate, n_requests))
    started, each, sent = time.perf_counter(), [], []

    async def send(i: int) -> None:
        client = await free.get()
        await client.send("/predict", bodies[i % len(bodies)])
        free.put_nowait(client)
        each.append(time.perf_counter() - started - arrivals[i])

    for i, arrival in enumerate(arrivals):
        await asyncio.sleep(max(arrival - (time.perf_counter() - started), 0.0))
        sent.append(asyncio.create_task(send(i)))
    await asyncio.gather(*sent)
    seconds = time.perf_counter() - started
    while not free.empty():
        await free.get_nowait().close()
    return seconds, each

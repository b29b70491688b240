"""HTTP server of one model: limits, token, batches of concurrent requests, metrics."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ehrmeta.errors import DataError, EhrmetaError, MissingExtraError
from ehrmeta.loading import load
from ehrmeta.serving.metrics import Metrics
from ehrmeta.serving.openapi import describe
from ehrmeta.serving.predictor import Answer, Predictor
from ehrmeta.serving.requests import Limits, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

_ROWS_AT_ONCE = 4096  # of a batch
_MOST_WAITING = 512  # requests; more are refused with status 503
_SHORTEST_TOKEN = 16  # characters
_BODY_SECONDS = 30.0  # to send a body
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServerSettings:
    """How a model is served.

    Parameters
    ----------
    host, port
        Address; another than this machine's own needs a token.
    token : str, optional
        Bearer token of every request except those for ``/health``.
    tls_cert, tls_key : str, optional
        Files of the certificate and its key.
    limits : Limits
    drain_seconds : int
        Time to answer open requests after SIGTERM.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    limits: Limits = Limits()
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        if self.token is None and self.host not in LOOPBACK:
            raise DataError(
                f"the server would be open to other machines at {self.host} without a token. Pass "
                "a token file, or the host 127.0.0.1."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise DataError("TLS needs the files of the certificate and of its key. Pass both.")


def read_token(path: str | Path) -> str:
    """The token in a file, without surrounding space."""
    token = Path(path).read_text(encoding="utf-8").strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise DataError(
            f"'{path}' must hold a token of {_SHORTEST_TOKEN} printable ASCII characters or more, "
            "such as that of `openssl rand -hex 32`."
        )
    return token


class Batcher:
    """Computes the requests that wait while a batch is computed as the next batch.

    One thread computes; a single request does not wait for others.
    """

    def __init__(self, predictor: Predictor, metrics: Metrics) -> None:
        self.predictor, self.metrics = predictor, metrics
        self._waiting: list[tuple[Request, asyncio.Future[Answer | EhrmetaError]]] = []
        self._thread = ThreadPoolExecutor(1, "ehrmeta-serve", lambda: torch.set_num_threads(1))
        self._running: asyncio.Task[None] | None = None

    @property
    def n_waiting(self) -> int:
        """Requests that wait for their batch."""
        return len(self._waiting)

    async def answer(self, request: Request) -> Answer | EhrmetaError:
        """The answer to a request, or its error."""
        future: asyncio.Future[Answer | EhrmetaError] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._next()
                self.metrics.add_batch(len(batch))
                requests = [request for request, _ in batch]
                loop = asyncio.get_running_loop()
                try:
                    answers = await loop.run_in_executor(
                        self._thread, self.predictor.answer, requests
                    )
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():  # the client may have gone
                        future.set_result(answer)
        finally:
            self._running = None

    def _next(self) -> list[tuple[Request, asyncio.Future[Answer | EhrmetaError]]]:
        """The requests of the next batch, limited by their rows."""
        n_rows = n_requests = 0
        for request, _ in self._waiting:
            n_rows += len(request.support) + len(request.query)
            if n_requests and n_rows > _ROWS_AT_ONCE:
                break
            n_requests += 1
        batch, self._waiting = self._waiting[:n_requests], self._waiting[n_requests:]
        return batch

    def close(self) -> None:
        """End the thread, after its batch."""
        self._thread.shutdown()


class _Refused(Exception):  # noqa: N818 - an answer, not an error of the server
    """A request that is not computed."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


class _Endpoints:
    """What a server answers at each path."""

    def __init__(self, model: Any, digest: str, token: str | None, limits: Limits) -> None:
        self.digest, self.limits, self.has_token = digest, limits, token is not None
        self.predictor, self.metrics = Predictor(model), Metrics(digest)
        self.batcher = Batcher(self.predictor, self.metrics)
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._response = _imported("fastapi").Response

    async def health(self, _request: Any) -> Any:
        """The digest of the model, without a token."""
        return self._reply({"status": "ok", "model_sha256": self.digest})

    async def show_metrics(self, request: Any) -> Any:
        """Metrics for Prometheus."""
        if not self._is_allowed(request):
            return self._refuse()
        text = self.metrics.text(self.batcher.n_waiting)
        return self._response(text, media_type="text/plain; version=0.0.4")

    async def show_openapi(self, request: Any) -> Any:
        """The description of the requests."""
        if not self._is_allowed(request):
            return self._refuse()
        described = describe(self.predictor, self.digest, self.limits, has_token=self.has_token)
        return self._reply(described)

    async def predict(self, request: Any) -> Any:
        """Predictions, or the reason why there are none."""
        started, rows = time.perf_counter(), (0, 0)
        if self._is_allowed(request):
            response, rows = await self._answer(request)
        else:
            response = self._refuse()
        self.metrics.add_request(response.status_code, time.perf_counter() - started, *rows)
        return response

    async def _answer(self, request: Any) -> tuple[Any, tuple[int, int]]:
        """The response, and the numbers of rows of support and query that it is of."""
        none = (0, 0)
        try:
            asked = await self._read(request)
            answer = await self.batcher.answer(asked)
            if isinstance(answer, EhrmetaError):
                raise answer
        except _Refused as refused:
            return self._detail(refused.detail, refused.status, **refused.headers), none
        except EhrmetaError as error:
            return self._detail(str(error), 422), none
        except Exception as error:
            # its text might hold a value of a patient
            return self._detail(f"internal error ({type(error).__name__}).", 500), none
        names, columns = list(answer.columns), answer.columns.values()
        predictions = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        content = {"predictions": predictions, "warnings": answer.warnings}
        return self._reply(content), (len(asked.support), len(asked.query))

    async def _read(self, request: Any) -> Request:
        """The rows of a request, within its limits."""
        try:
            body = await asyncio.wait_for(_body(request, self.limits.n_bytes), _BODY_SECONDS)
        except TimeoutError:
            raise _Refused(408, "the body was not sent in time.", connection="close") from None
        if body is None:
            most = f"the body has more than {self.limits.n_bytes:,} bytes. Send several requests."
            raise _Refused(413, most, connection="close")
        if self.batcher.n_waiting >= _MOST_WAITING:
            raise _Refused(503, "too many requests wait.", **{"retry-after": "1"})
        return Request.from_json(body, self.predictor.schema, self.limits)

    def _is_allowed(self, request: Any) -> bool:
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        return self._expected is None or hmac.compare_digest(given, self._expected)

    def _refuse(self) -> Any:
        return self._detail("the bearer token is missing or wrong.", 401)

    def _detail(self, text: str, status: int, **headers: str) -> Any:
        return self._reply({"detail": " ".join(text.split())}, status, **headers)

    def _reply(self, content: Any, status: int = 200, **headers: str) -> Any:
        text = json.dumps(content, allow_nan=False).encode()
        return self._response(text, status, headers, media_type="application/json")


def make_app(
    model: Any, digest: str, *, token: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """The application that serves a model.

    Parameters
    ----------
    model : fitted estimator
        As for `score_partition`.
    digest : str
        SHA-256 of its file, for ``/health`` and the metrics.
    token : str, optional
        As in `ServerSettings`.
    limits : Limits, optional

    Raises
    ------
    MissingExtraError
        FastAPI is not installed.
    """
    fastapi = _imported("fastapi")
    endpoints = _Endpoints(model, digest, token, limits or Limits())

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        yield
        endpoints.batcher.close()

    app: FastAPI = fastapi.FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.router.add_route("/health", endpoints.health, methods=["GET"])
    app.router.add_route("/metrics", endpoints.show_metrics, methods=["GET"])
    app.router.add_route("/openapi.json", endpoints.show_openapi, methods=["GET"])
    app.router.add_route("/predict", endpoints.predict, methods=["POST"])
    return app


async def _body(request: Any, limit: int) -> bytes | None:
    """The body; None if it is longer than the limit, of which no more is read."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limit:
        return None
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


def serve(path: str | Path, settings: ServerSettings, started: Any = None) -> None:
    """Serve the model of a file until SIGTERM or SIGINT; open requests are answered first.

    `started` is called with a line once the model is loaded.
    """
    uvicorn = _imported("uvicorn")
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    model = load(path)
    app = make_app(model, digest, token=settings.token, limits=settings.limits)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    if started is not None:
        scheme = "http" if settings.tls_cert is None else "https"
        started(f"serving {path} at {scheme}://{settings.host}:{settings.port}/predict")
    # uvicorn raises the signal again once it has ended: the process is to end with status 0.
    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _imported(name: str) -> Any:
    """A module of the extra ``serve``."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            "a server needs FastAPI and uvicorn. Install them by pip install 'ehrmeta[serve]'."
        ) from error

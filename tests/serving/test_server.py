"""The server: tokens, limits, batches, and no patient in what it writes."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import ehrmeta
from ehrmeta.errors import DataError, MissingExtraError
from ehrmeta.serving import server
from ehrmeta.serving.metrics import Metrics
from ehrmeta.serving.predictor import Predictor
from ehrmeta.serving.requests import Limits, Request

uvicorn = pytest.importorskip("uvicorn")

TOKEN = "0123456789abcdef"
BODY = {
    "support": [
        {"patient": "a", "day": 0, "sex": "f", "crp": 2.0, "hdl": 60},
        {"patient": "a", "day": 30, "sex": "f", "crp": None, "hdl": 62},
    ],
    "query": [{"patient": "a", "day": 60, "sex": "f"}, {"patient": "b", "day": 5, "sex": "m"}],
}


@pytest.fixture(scope="module")
def port(model):
    """Of a server in a thread, with a token and small limits."""
    app = server.make_app(model, "abc", token=TOKEN, limits=Limits(n_bytes=5000, n_rows=10))
    config = uvicorn.Config(app, port=0, log_level="critical", access_log=False)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield running.servers[0].sockets[0].getsockname()[1]
    running.should_exit = True
    thread.join()


def send(port, body=None, path="/predict", token=TOKEN, **headers):
    """Status and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    method = "GET" if body is None else "POST"
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    is_json = response.headers["content-type"] == "application/json"
    return response.status, json.loads(text) if is_json else text


def test_predictions_and_intervals(port, model):
    status, answer = send(port, json.dumps(BODY))
    assert status == 200
    first, second = answer["predictions"]
    assert [first["task"], first["time"], second["task"]] == ["a", 60, "b"]
    assert first["lower"] < first["mean"] < first["upper"]
    assert answer["warnings"] == []
    frame = pd.DataFrame([*BODY["support"], *BODY["query"]])
    expected = ehrmeta.score_partition(frame, model)
    means = [row["mean"] for row in answer["predictions"]]
    np.testing.assert_allclose(means, expected["mean"], rtol=1e-5)


def test_concurrent_requests_are_answered_each_by_its_own(port):
    def ask(i):
        body = json.loads(json.dumps(BODY))
        body["support"][0]["hdl"] = 40 + i
        return send(port, json.dumps(body))[1]["predictions"][0]["mean"]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(24)))
    alone = [ask(i) for i in range(24)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert len({round(mean, 3) for mean in together}) == 24


def test_errors_are_those_of_python_with_status_422(port):
    unknown = {**BODY, "query": [{"patient": "a", "day": "tomorrow", "sex": "f"}]}
    status, answer = send(port, json.dumps(unknown))
    assert status == 422
    assert "day" in answer["detail"]
    assert "tomorrow" not in answer["detail"]


def test_a_token_is_needed(port):
    for token in (None, "", "0123456789abcdeg", "\xe9" * 16):
        status, answer = send(port, json.dumps(BODY), token=token)
        assert (status, answer["detail"]) == (401, "the bearer token is missing or wrong.")
    assert send(port, path="/metrics", token=None)[0] == 401
    assert send(port, path="/openapi.json", token=None)[0] == 401
    assert send(port, path="/health", token=None) == (200, {"status": "ok", "model_sha256": "abc"})


def test_limits_hold_before_the_body_is_parsed(port):
    status, answer = send(port, b"[" * 5001)
    assert (status, answer["detail"][:31]) == (413, "the body has more than 5,000 by")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    chunks = iter([b"[" * 3000, b"[" * 3000])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    connection.request("POST", "/predict", chunks, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    status, answer = send(port, json.dumps({"query": BODY["query"] * 6}))
    assert (status, "12 rows; the limit is 10" in answer["detail"]) == (422, True)


def test_metrics_and_openapi(port, model):
    send(port, json.dumps(BODY))
    status, text = send(port, path="/metrics")
    assert (status, 'ehrmeta_requests_total{status="200"}' in text) == (200, True)
    _, document = send(port, path="/openapi.json")
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    row = body["schema"]["properties"]["support"]["items"]["properties"]
    assert set(row) == {"patient", "day", "sex", "crp", "hdl"}
    assert row["hdl"]["description"] == "hdl [mg/dL], outcome."
    assert send(port, path="/predict/../../etc/passwd")[0] == 404


def malformed(rng):
    """A body with something wrong, or bytes of a body at random."""
    cells = [None, True, -1, 1e300, 2**62, "", "x", "2020-01-01", "\0", "<5", [], {}, "é"]
    body = json.loads(json.dumps(BODY))
    for _ in range(rng.integers(1, 4)):
        side = body[rng.choice(["support", "query"])]
        row = side[rng.integers(len(side))]
        row[rng.choice(["patient", "day", "sex", "crp", "hdl", "more"])] = cells[
            rng.integers(len(cells))
        ]
        if rng.random() < 0.2:
            row.pop(rng.choice(list(row)))
    text = json.dumps(body).encode()
    if rng.random() < 0.5:
        broken = bytearray(text)
        for _ in range(rng.integers(1, 5)):
            broken[rng.integers(len(broken))] = rng.integers(256)
        return bytes(broken[: rng.integers(1, len(broken) + 1)])
    return text


@pytest.mark.parametrize("n_bodies", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_get_no_status_500(port, n_bodies):
    rng = np.random.default_rng(n_bodies)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    statuses = set()
    for _ in range(n_bodies):
        connection.request("POST", "/predict", malformed(rng), {"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    connection.close()
    assert statuses <= {200, 422}
    assert 422 in statuses


def test_batches_are_limited_by_rows_and_an_error_reaches_its_request(model, monkeypatch):
    predictor = Predictor(model)
    sizes = []

    def answer(requests):
        sizes.append(len(requests))
        return Predictor.answer(predictor, requests)

    monkeypatch.setattr(predictor, "answer", answer)
    monkeypatch.setattr(server, "_ROWS_AT_ONCE", 8)
    batcher = server.Batcher(predictor, Metrics("abc"))
    request = Request(BODY["support"], BODY["query"])

    async def ask():
        return await asyncio.gather(*(batcher.answer(request) for _ in range(5)))

    answers = asyncio.run(ask())
    batcher.close()
    assert sizes == [2, 2, 1]
    assert all(one.columns["task"] == ["a", "b"] for one in answers)


def test_settings_that_would_open_the_server_are_refused(tmp_path):
    with pytest.raises(DataError, match="open to other machines at 0.0.0.0 without a token"):
        server.ServerSettings(host="0.0.0.0")
    with pytest.raises(DataError, match="Pass both"):
        server.ServerSettings(tls_cert="cert.pem")
    assert TOKEN not in repr(server.ServerSettings(host="0.0.0.0", token=TOKEN))
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(DataError, match="16 printable ASCII characters or more"):
        server.read_token(tmp_path / "token")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert server.read_token(tmp_path / "token") == TOKEN


def test_a_missing_extra_names_the_pip_command(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrmeta\[serve\]'"):
        server.make_app(model, "abc")


@pytest.mark.slow
def test_the_command_drains_on_sigterm_and_logs_no_patient(model_file):
    port = "18431"
    command = [sys.executable, "-m", "ehrmeta", "serve", model_file, "--port", port]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        assert "serving" in running.stdout.readline()
        body = json.dumps(BODY).replace('"a"', '"Mrs Secret"')
        for _ in range(100):
            try:
                status, _ = send(int(port), body, token=None)
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        assert status == 200
        assert send(int(port), body.replace("60", '"x"'), token=None)[0] == 422
        running.send_signal(signal.SIGTERM)
        printed = running.stdout.read()
        assert running.wait() == 0
    assert "Secret" not in printed

"""Exported graphs: the numbers of the model for every size of support."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression

from ehrmeta import MAML, DeepMixedEffects, MetaRegressor, MetaSGD, Table
from ehrmeta.errors import BundleError, DataError
from ehrmeta.estimators.export.graph import INPUTS

SHOTS, QUERIES = 6, 2


@pytest.fixture(scope="module")
def table():
    """Visits of sixty patients, with a measured feature that is often missing."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 10)
    day = np.tile(np.arange(0.0, 300.0, 30.0), 60)
    crp = np.where(rng.random(600) < 0.3, np.nan, rng.lognormal(1.0, 0.5, 600))
    own = rng.normal(0.0, 8.0, 60)[patient]
    sex = np.where(patient % 2 == 0, "f", "m")
    hdl = 50.0 + own + 0.01 * day + rng.normal(0.0, 3.0, 600)
    frame = pd.DataFrame({"patient": patient, "day": day, "sex": sex, "crp": crp, "hdl": hdl})
    return Table.from_frame(frame, task="patient", time="day", outcome="hdl", measured=["crp"])


def fitted(table, algorithm, **settings):
    model = MetaRegressor(
        algorithm, max_steps=5, outcome_transform=None, random_state=0, **settings
    )
    return model.fit(table.X, table.y, groups=table.groups, time=table.time)


def runner(folder, format):
    """A function of the graph's inputs that gives its outputs by name."""
    outputs = json.loads((folder / "encoder.json").read_text())["outputs"]
    if format == "torch":
        graph = torch.export.load(folder / "model.pt2").module()
        return lambda *inputs: dict(zip(outputs, graph(*inputs), strict=True))
    session = pytest.importorskip("onnxruntime").InferenceSession(folder / "model.onnx")
    known = {one.name for one in session.get_inputs()}

    def run(*inputs):
        pairs = zip(INPUTS, inputs, strict=True)
        found = session.run(outputs, {n: value.numpy() for n, value in pairs if n in known})
        return dict(zip(outputs, map(torch.from_numpy, found), strict=True))

    return run


def inputs_of(model, rows, shots):
    """Inputs for the first rows of a patient, and these rows as the model encodes them."""
    support = model.no_rows()
    if shots:
        first = rows.take(np.arange(shots))
        support = model.read_support(first.X, first.y, time=first.time)[1]
    later = rows.take(np.arange(shots, shots + QUERIES))
    read = model.read(later.X, time=later.time)
    query = model.table.rows(read, np.zeros(QUERIES, np.int64), 1)

    def padded(values):
        width = (0, 0) * (values.ndim - 1) + (0, SHOTS - shots)
        return torch.nn.functional.pad(values, width)

    columns = (support.x, support.measured, support.time, support.y)
    inputs = (*map(padded, columns), torch.arange(SHOTS) < shots, query.x, query.time)
    return inputs, support, query


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of torch and of its writer of ONNX
@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize("algorithm", [MAML(), MetaSGD(), DeepMixedEffects()], ids=repr)
def test_a_graph_has_the_numbers_of_the_model(table, tmp_path, algorithm, format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    estimator = fitted(table, algorithm)
    estimator.export(tmp_path, format=format, max_shots=SHOTS, n_queries=QUERIES)
    run, model = runner(tmp_path, format), estimator.model_
    for shots in range(SHOTS + 1):
        inputs, support, query = inputs_of(model, table.take(table.groups == shots), shots)
        expected = model.learner.predict(support, model.learner.adapt(support), query)
        found = run(*inputs)
        assert set(found) == set(expected)
        for name, values in expected.items():
            torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-5)
    described = json.loads((tmp_path / "encoder.json").read_text())
    assert described["measured"] == ["crp"]
    assert described["table"]["outcome"]["scale"] == model.table.outcome.scale


def test_what_cannot_be_exported_is_refused(table, tmp_path):
    estimator = fitted(table, MAML(), population=LinearRegression())
    with pytest.raises(DataError, match="format must be 'torch' or 'onnx'"):
        estimator.export(tmp_path, format="pickle")
    with pytest.raises(DataError, match="must be 1 or more"):
        estimator.export(tmp_path, max_shots=0)
    with pytest.raises(BundleError, match="cannot be exported"):
        estimator.export(tmp_path)
    assert not list(tmp_path.iterdir())

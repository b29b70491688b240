"""The recipes of the guide, where the engines are installed: the numbers of one call."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ehrmeta

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "scoring.md"

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # engines warn of their own


def recipe(name):
    """A function that the guide defines."""
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "scoring.md", "exec"), names)
    return names[name]


@pytest.fixture(scope="module")
def rows(visits):
    return visits.assign(hdl=visits["hdl"].mask(visits.groupby("patient").cumcount() >= 5))


def check(scored, rows, model):
    expected = ehrmeta.score_partition(rows, model)
    scored = scored.sort_values(["task", "time"]).reset_index(drop=True)
    assert list(scored) == list(expected)
    assert scored["task"].tolist() == expected["task"].tolist()
    for name in ("mean", "lower", "upper"):
        np.testing.assert_allclose(scored[name], expected[name], rtol=1e-5)


def test_dask(rows, model_file):
    dask = pytest.importorskip("dask.dataframe")
    visits = dask.from_pandas(rows.sample(frac=1.0, random_state=0), npartitions=3)
    scored = recipe("score_with_dask")(visits, str(model_file)).compute(scheduler="threads")
    check(pd.DataFrame(scored), rows, model_file)


def test_ray(rows, model_file):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error")
    try:
        visits = ray.data.from_pandas(rows)
        check(recipe("score_with_ray")(visits, str(model_file)).to_pandas(), rows, model_file)
    finally:
        ray.shutdown()


def test_spark(rows, model_file, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    with spark.getOrCreate() as session:
        visits = session.createDataFrame(rows)
        check(recipe("score_with_spark")(visits, str(model_file)).toPandas(), rows, model_file)

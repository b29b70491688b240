"""A small table of visits, and a model of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ehrmeta import MetaRegressor, Table


@pytest.fixture(scope="package")
def visits() -> pd.DataFrame:
    """Eighty patients of ten visits."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(80), 10)
    own = rng.normal(0.0, 8.0, 80)[patient]
    return pd.DataFrame(
        {
            "patient": patient,
            "day": np.tile(np.arange(0.0, 300.0, 30.0), 80) + rng.uniform(0, 20, 800),
            "sex": np.repeat(rng.choice(["f", "m"], 80), 10),
            "crp": rng.lognormal(1.0, 0.5, 800),
            "hdl": 50.0 + own + rng.normal(0.0, 3.0, 800),
        }
    )


@pytest.fixture(scope="package")
def model(visits: pd.DataFrame) -> MetaRegressor:
    """Fitted on them, with a measured feature."""
    table = Table.from_frame(
        visits, task="patient", time="day", outcome="hdl", measured=["crp"], units={"hdl": "mg/dL"}
    )
    estimator = MetaRegressor(max_steps=5, outcome_transform=None, random_state=0)
    return estimator.fit(table.X, table.y, groups=table.groups, time=table.time)


@pytest.fixture(scope="package")
def model_file(model: MetaRegressor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file."""
    path = tmp_path_factory.mktemp("model") / "hdl.ehrmeta"
    model.save(path)
    return path

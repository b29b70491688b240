"""Golden model files of the present format: run by hand, once, when FORMAT_VERSION rises.

``python tests/persistence/make_golden.py`` writes ``golden/<version>-<name>.ehrmeta``, and beside
each a JSON file with what the model says of two new patients.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from ehrmeta import (
    MLP,
    Clock,
    DeepMixedEffects,
    Feature,
    MetaClassifier,
    MetaRegressor,
    MetaSGD,
    Outcome,
    Schema,
)
from ehrmeta.persistence.bundle import FORMAT_VERSION

FOLDER = Path(__file__).with_name("golden")
SCHEMA = Schema(
    (
        Feature("age", role="static", unit="a", low=0, high=120),
        Feature("sex", kind="categorical", role="static"),
        Feature("weight", role="measured", unit="kg"),
    ),
    Outcome("hdl", unit="mg/dL"),
    task="patient",
    time=Clock("day"),
)
N_VISITS = 6


def visits(n_patients: int, seed: int) -> dict[str, list[Any]]:
    """Columns of a small table, (row,)."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), N_VISITS)
    day = np.tile(30.0 * np.arange(N_VISITS), n_patients)
    age = rng.uniform(20, 80, n_patients)[patient].round(1)
    weight = rng.normal(75, 12, n_patients)[patient] + rng.normal(0, 2, len(patient))
    y = 50 + rng.normal(0, 4, n_patients)[patient] + 0.1 * age + rng.normal(0, 1, len(patient))
    return {
        "age": age.tolist(),
        "sex": rng.choice(["f", "m"], n_patients)[patient].tolist(),
        "weight": np.where(rng.random(len(patient)) < 0.2, np.nan, weight.round(1)).tolist(),
        "patient": patient.tolist(),
        "day": day.tolist(),
        "hdl": y.round(2).tolist(),
    }


def forecasts(model: Any, columns: dict[str, list[Any]]) -> dict[str, Any]:
    """What a model says of patients before and after their first three visits."""
    table = pd.DataFrame(columns)
    X = table[["age", "sex", "weight"]]
    y = table.hdl.to_numpy() if isinstance(model, MetaRegressor) else (table.hdl > 55).to_numpy(int)
    early = (table.day < 90).to_numpy()
    adapted = model.adapt(X[early], y[early], groups=table.patient[early], time=table.day[early])
    later = {"groups": table.patient[~early], "time": table.day[~early]}
    if isinstance(model, MetaRegressor):
        predicted = adapted.predict_quantiles(X[~early], **later)
        return {
            "population": model.predict(X, time=table.day).tolist(),
            "adapted": predicted.tolist(),
        }
    predicted = adapted.predict_proba(X[~early], **later)
    return {
        "population": model.predict_proba(X, time=table.day).tolist(),
        "adapted": predicted.tolist(),
    }


def main() -> None:
    """Fit, save, and keep what each model says."""
    settings = {"max_steps": 20, "batch_size": 16, "random_state": 0, "verbose": False}
    settings |= {"schema": SCHEMA, "backbone": MLP((4,), "tanh")}
    models = {
        "meta-sgd": MetaRegressor(MetaSGD(inner_steps=2), likelihood="student_t", **settings),
        "deep-mixed-effects": MetaRegressor(DeepMixedEffects(), **settings),
        "classifier": MetaClassifier(MetaSGD(), **settings),
        "logistic-population": MetaClassifier(population=LogisticRegression(), **settings),
    }
    train = pd.DataFrame(visits(60, seed=0))
    new = visits(2, seed=1)
    FOLDER.mkdir(exist_ok=True)
    for name, model in models.items():
        y = train.hdl if isinstance(model, MetaRegressor) else (train.hdl > 55).astype(int)
        model.fit(train[["age", "sex", "weight"]], y, groups=train.patient, time=train.day)
        path = FOLDER / f"{FORMAT_VERSION}-{name}.ehrmeta"
        model.save(path)
        text = json.dumps({"columns": new, "forecasts": forecasts(model, new)}, indent=1)
        path.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()

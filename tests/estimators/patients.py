"""Small tables of patients and a model that trains in a second."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ehrmeta import MAML, MLP, MetaRegressor


class Patients(NamedTuple):
    """Visits of patients with a level and a slope of their own."""

    X: pd.DataFrame
    y: np.ndarray
    groups: np.ndarray
    time: np.ndarray


def make_patients(n_patients: int = 60, n_visits: int = 6, seed: int = 0) -> Patients:
    """Age, sex and an outcome whose level differs by patient."""
    rng = np.random.default_rng(seed)
    n = n_patients * n_visits
    groups = np.repeat(np.arange(n_patients), n_visits)
    time = np.tile(np.arange(n_visits, dtype=float), n_patients) * 30.0
    age, sex = rng.uniform(20, 80, n_patients), rng.choice(["f", "m"], n_patients)
    X = pd.DataFrame({"age": age[groups], "sex": sex[groups]})
    level = rng.normal(0, 3, n_patients)
    y = 50 + level[groups] + 0.1 * X.age.to_numpy() + rng.normal(0, 1, n)
    return Patients(X, y, groups, time)


def small_model(**parameters) -> MetaRegressor:
    """A model that trains in a second."""
    defaults = {
        "algorithm": MAML(inner_steps=1, mixed_start=False),
        "backbone": MLP((8,), "tanh"),
        "max_steps": 150,
        "batch_size": 32,
        "learning_rate": 0.02,
        "random_state": 0,
        "verbose": False,
    }
    return MetaRegressor(**(defaults | parameters))

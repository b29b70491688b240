"""Simulated files of the challenge."""

import numpy as np
import pandas as pd
import pytest

FIRST_ID = 132_539


@pytest.fixture(scope="module")
def frame():
    """700 stays, the first 50 of which have too few values, as RecordID, hour, Parameter, Value."""
    rng = np.random.default_rng(0)
    parts = []
    for stay in range(700):
        early = 3 if stay < 50 else int(rng.integers(4, 8))
        minutes = np.sort(
            np.concatenate([rng.choice(1440, early, False), 1441 + rng.choice(1400, 3, False)])
        )
        for variable, level in (("GCS", 12), ("HCT", 30)):
            values = np.round(level + rng.normal(0, 2) + rng.normal(0, 1, len(minutes)))
            part = {"RecordID": FIRST_ID + stay, "minute": minutes, "Parameter": variable}
            parts.append(pd.DataFrame(part | {"Value": values}))
    stays = pd.concat(parts, ignore_index=True)
    return stays.assign(hour=(stays.minute / 60).astype(np.float32))


@pytest.fixture(scope="module")
def folder(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("physionet")
    frame[["RecordID", "hour", "Parameter", "Value"]].to_parquet(path / "set_a.parquet")
    return path

"""A study in files: training visits, those of new patients, a model and its adapted patients."""

import numpy as np
import pandas as pd
import pytest

from tests.cli.commands import FIT, run


@pytest.fixture(autouse=True, scope="session")
def patience():
    """No sign of life of a long stage, however slow the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ehrmeta.cli.messages._EVERY", 1e6)
        yield


@pytest.fixture(scope="session")
def visits():
    """Visits of 40 patients with ids that a careless reader turns into numbers."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 6)
    days = np.tile(np.arange(6) * 50, 40) + rng.integers(0, 40, len(patients))
    level, sex = rng.normal(50, 8, 40), rng.choice(["f", "m"], 40)
    return pd.DataFrame(
        {
            "patient": [f"{number:03d}" for number in patients],
            "date": (pd.Timestamp("2020-01-01") + pd.to_timedelta(days, "D")).strftime("%Y-%m-%d"),
            "sex": sex[patients],
            "crp": rng.gamma(2, 3, len(patients)).round(1),
            "hdl": (level[patients] + rng.normal(0, 2, len(patients))).round(),
        }
    )


@pytest.fixture(scope="session")
def folder(visits, tmp_path_factory):
    """The files of a study, the model included."""
    folder = tmp_path_factory.mktemp("study")
    old, new = visits[visits.patient < "030"], visits[visits.patient >= "030"]
    visit = new.groupby("patient").cumcount()
    old.to_csv(folder / "visits.csv", index=False)
    new.to_csv(folder / "test.csv", index=False)
    new[visit < 2].to_csv(folder / "first.csv", index=False)
    new[visit == 2].to_parquet(folder / "third.parquet", index=False)
    new[visit > 2].drop(columns=["hdl", "crp"]).to_csv(folder / "later.csv", index=False)
    run(
        *("fit", folder / "visits.csv", *FIT, "--unit", "hdl=mg/dL"),
        *("--range", "hdl=5:200", "--out", folder / "hdl.ehrmeta"),
    )
    run("adapt", folder / "hdl.ehrmeta", folder / "first.csv", "--out", folder / "new.ehrmeta")
    return folder


@pytest.fixture(scope="session")
def risky(visits, tmp_path_factory):
    """The files of a study of yes and no, with a model and its adapted patients."""
    folder = tmp_path_factory.mktemp("risky")
    table = visits.assign(hdl=np.where(visits.hdl > 50, "yes", "no"))
    old, new = table[table.patient < "030"], table[table.patient >= "030"]
    old.to_csv(folder / "visits.csv", index=False)
    table.to_csv(folder / "all.csv", index=False)
    new.to_csv(folder / "test.csv", index=False)
    new.drop(columns="hdl").to_csv(folder / "later.csv", index=False)
    run("fit", folder / "visits.csv", *FIT, "--out", folder / "low.ehrmeta")
    run("adapt", folder / "low.ehrmeta", folder / "test.csv", "--out", folder / "new.ehrmeta")
    return folder

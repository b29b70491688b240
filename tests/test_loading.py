"""`load` opens every kind of file, and none that it does not know."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from ehrmeta import MetaRegressor, load
from ehrmeta.errors import BundleError
from ehrmeta.persistence import read_bundle, write_bundle
from tests.estimators.patients import make_patients, small_model

X, Y, GROUPS, TIME = make_patients(n_patients=25)


@pytest.fixture(scope="module")
def model() -> MetaRegressor:
    return small_model(max_steps=2).fit(X, Y, groups=GROUPS, time=TIME)


def test_a_model_and_its_patients_come_back_in_their_classes(model, tmp_path):
    adapted = model.adapt(X[:3], Y[:3], groups=GROUPS[:3], time=TIME[:3])
    for number, saved in enumerate((model, adapted)):
        saved.save(tmp_path / f"{number}.ehrmeta", rare_levels="keep")
        loaded = load(tmp_path / f"{number}.ehrmeta")
        assert type(loaded) is type(saved)
    expected = adapted.predict(X[3:5], groups=GROUPS[3:5], time=TIME[3:5])
    found = loaded.predict(X[3:5], groups=GROUPS[3:5], time=TIME[3:5])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: metadata.update(kind="zip"), "kind 'zip' is unknown"),
        (lambda metadata: metadata["model"].update({"class": "os.system"}), "is not allowed"),
        (lambda metadata: metadata.pop("kind"), "do not fit together"),
    ],
    ids=["kind", "class", "none"],
)
def test_what_is_not_known_is_refused(model, change, message, tmp_path):
    model.save(tmp_path / "model.ehrmeta", rare_levels="keep")
    tensors, metadata = read_bundle(tmp_path / "model.ehrmeta")
    metadata = copy.deepcopy(metadata)
    change(metadata)
    write_bundle(tmp_path / "forged.ehrmeta", tensors, metadata)
    with pytest.raises(BundleError, match=message):
        load(tmp_path / "forged.ehrmeta")

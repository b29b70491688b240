import numpy as np

from ehrmeta import ConformalRegressor, MetaRegressor, TreatmentResponse
from ehrmeta.persistence import read_bundle, write_bundle
from tests.cli.commands import run
from tests.estimators.patients import make_patients, small_model


def test_inspect_shows_all_of_a_model_but_no_row_of_its_patients(folder):
    shown = run("inspect", folder / "hdl.ehrmeta", "--full").output
    for name in ("provenance", *MetaRegressor.load(folder / "hdl.ehrmeta").model_.learner.params):
        assert name in shown
    shown = run("inspect", folder / "new.ehrmeta", "--full").output
    assert "contains patient data" in shown
    assert '"030"' not in shown


def test_inspect_says_the_main_things_in_a_few_lines(folder):
    shown = run("inspect", folder / "hdl.ehrmeta").output
    for words in ("MetaRegressor", "DeepMixedEffects", "30 tasks", "hdl", "no row and no label"):
        assert words in shown
    assert len(shown.splitlines()) < 25
    shown = run("inspect", folder / "new.ehrmeta").output
    assert "Adapted(10 tasks" in shown
    assert "contains patient data" in shown
    assert "030" not in shown


def test_inspect_tells_a_file_that_names_rare_levels(tmp_path):
    X, y, groups, _ = make_patients(30)
    X.loc[groups < 7, "sex"] = "x"
    path = tmp_path / "named.ehrmeta"
    small_model(max_steps=1).fit(X, y, groups=groups).save(path, rare_levels="keep")
    shown = run("inspect", path).output
    assert "contains patient data: it names levels of fewer than 11 patients" in shown
    assert "no row and no label" not in shown


def test_inspect_lets_no_file_write_to_the_terminal(folder):
    forged = folder / "forged.ehrmeta"
    tensors, metadata = read_bundle(folder / "hdl.ehrmeta")
    write_bundle(forged, tensors, metadata | {"title": "\x9b2J\x1b[2J"})
    shown = run("inspect", forged, "--full").output
    assert not {"\x9b", "\x1b"} & set(shown)


def test_inspect_reads_effects_and_calibrations(tmp_path):
    X, y, groups, time = make_patients(40)
    arms = np.arange(len(y)) % 2
    effects = TreatmentResponse(random_state=0).fit(X[["age"]], y, treatment=arms, groups=groups)
    effects.save(tmp_path / "effects.ehrmeta")
    shown = run("inspect", tmp_path / "effects.ehrmeta").output
    assert "TreatmentResponse" in shown and "no row and no label" in shown

    train, few = groups < 32, groups >= 32
    model = small_model(max_steps=1)
    model.fit(X[train], y[train], groups=groups[train], time=time[train])
    calibrated = ConformalRegressor(model)
    calibrated.calibrate(X[few], y[few], groups=groups[few], time=time[few])
    calibrated.save(tmp_path / "calibrated.ehrmeta")
    shown = run("inspect", tmp_path / "calibrated.ehrmeta").output
    assert "limits calibrated on fewer than 11 patients" in shown

"""The report on a classifier holds its scores, and no report is written of too few patients."""

import numpy as np
import pytest

from ehrmeta import MetaClassifier
from ehrmeta.baselines import TaskLogistic
from ehrmeta.errors import DataError
from ehrmeta.evaluation import k_shot_class_curve
from ehrmeta.report import risk_report

rng = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(40), 6)
X = rng.normal(size=(240, 1))
SCORE = X[:, 0] + rng.normal(size=40)[GROUPS]
ROWS = {"groups": GROUPS, "time": np.tile(np.arange(6.0), 40)}


@pytest.mark.parametrize("classes", [["no", "yes"], ["mild", "none", "severe"]])
def test_the_page_shows_the_scores_of_the_curve(classes):
    cuts = np.quantile(SCORE, np.arange(1, len(classes)) / len(classes))
    y = np.array(classes)[np.searchsorted(cuts, SCORE)]
    model = (
        TaskLogistic(known=["x0"])
        if len(classes) == 2
        else MetaClassifier(max_steps=2, random_state=0, known=["x0"])
    )
    model.fit(X, y, **ROWS)
    given = {**ROWS, "shots": (1, 2), "allow_training_table": True}
    page = risk_report(model, X, y, **given, baselines={"same": model})
    curve = k_shot_class_curve({"a": model}, X, y, **given, n_bootstrap=0)
    text = page.to_markdown()
    for value in curve["value"]:
        assert f"{value:.3f}" in text
    has_curve = any(section.title == "Calibration" for section in page.sections)
    assert has_curve == (len(classes) == 2)
    assert "40 patients" in text


def test_the_event_is_one_of_two_classes():
    y = np.where(SCORE > 0, "yes", "no")
    model = TaskLogistic(known=["x0"]).fit(X, y, **ROWS)
    given = {**ROWS, "shots": (2,), "allow_training_table": True}
    assert "rows of class no over" in risk_report(model, X, y, **given, event="no").to_markdown()
    with pytest.raises(DataError, match=r"event must be one of two classes, which are \['no'"):
        risk_report(model, X, y, **given, event="never")


def test_subgroups_and_checklists_are_those_of_a_report_on_numbers():
    y = np.where(SCORE > 0, "yes", "no")
    model = TaskLogistic(known=["x0"]).fit(X, y, **ROWS)
    given = {**ROWS, "shots": (2,), "allow_training_table": True, "answers": {"13": "none"}}
    ward = np.where(GROUPS < 20, "a", "b")
    page = risk_report(model, X, y, **given, subgroups={"ward": ward})
    sections = {section.title: section for section in page.sections}
    losses = {name: page_of.tables[0].rows for name, page_of in sections.items() if page_of.tables}
    assert [row[0] for row in losses["Groups of patients"]] == ["ward: a", "ward: b"]
    means = [float(row[2].split()[0]) for row in losses["Groups of patients"]]
    assert np.mean(means) == pytest.approx(
        float(losses["Scores after k values"][0][1].split()[0]), abs=1e-3
    )
    items = dict(row[:2] for row in losses["Checklists"])
    assert (items["13 Class imbalance"], items["14 Fairness"]) == ("answered", "filled")


def test_few_patients_are_not_reported():
    few = GROUPS < 10
    y = np.where(SCORE > 0, "yes", "no")
    model = TaskLogistic(known=["x0"]).fit(X, y, **ROWS)
    with pytest.raises(DataError, match="10 test patients are too few"):
        risk_report(model, X[few], y[few], groups=GROUPS[few], time=ROWS["time"][few])

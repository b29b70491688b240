"""A waterfall ends at the prediction."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta import DeepMixedEffects, MetaClassifier, MetaRegressor
from ehrmeta.baselines import MixedEffects
from ehrmeta.errors import DataError
from ehrmeta.report import ExplanationDisplay

DAYS = np.tile(np.arange(6.0), 40)
GROUPS = np.repeat(np.arange(40), 6)
RNG = np.random.default_rng(0)
X, Y = np.zeros((240, 1)), RNG.normal(0, 3, 40)[GROUPS] + RNG.normal(50, 1, 240)


@pytest.fixture(scope="module")
def adapted():
    model = MetaRegressor(DeepMixedEffects(), max_steps=5, random_state=0)
    return model.fit(X, Y, groups=GROUPS, time=DAYS).adapt(X[:3], Y[:3], time=DAYS[:3])


def test_the_bars_lead_from_population_to_prediction(adapted):
    drawn = ExplanationDisplay.from_estimator(adapted, X[3:6], time=DAYS[3:6], row=1)
    bars = drawn.ax_.patches
    assert len(bars) == 4  # visits, three values
    (population,) = adapted.unadapted().predict(X[4:5], time=DAYS[4:5])
    assert bars[0].get_x() == pytest.approx(population, rel=1e-5)
    (prediction,) = adapted.predict(X[4:5], time=DAYS[4:5])
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(prediction, abs=2e-3)
    words = [label.get_text() for label in drawn.ax_.get_yticklabels()]
    assert (words[0], words[-1]) == ("population", "this patient")
    assert words[2].startswith("value 4 before: ")


def test_classes_are_named_and_have_a_rest():
    model = MetaClassifier(max_steps=5, random_state=0)
    model.fit(X, np.where(Y > 50, "high", "low"), groups=GROUPS, time=DAYS)
    adapted = model.adapt(X[:2], np.array(["high", "low"]), time=DAYS[:2])
    drawn = ExplanationDisplay.from_estimator(adapted, X[3:4], time=DAYS[3:4], target="high")
    assert drawn.ax_.get_xlabel() == "probability of high"
    assert "interaction of several values" in [t.get_text() for t in drawn.ax_.get_yticklabels()]


def test_a_row_that_is_not_there_is_refused(adapted):
    with pytest.raises(DataError, match="row=3, but X has 3 rows"):
        ExplanationDisplay.from_estimator(adapted, X[3:6], time=DAYS[3:6], row=3)


def test_features_lead_from_others_to_the_patient_the_largest_first():
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(240, 12)), columns=[f"f{i}" for i in range(12)])
    wide["sex"] = np.where(GROUPS % 2 == 0, "woman", "man")
    y = Y + wide.iloc[:, :12].to_numpy() @ np.arange(12.0) + 30.0 * (GROUPS % 2)
    model = MixedEffects(known=list(wide)).fit(wide, y, groups=GROUPS, time=DAYS)
    adapted = model.adapt(wide[:3], y[:3], time=DAYS[:3])
    given = {"time": DAYS[3:6], "background": wide[6:], "row": 1}
    drawn = ExplanationDisplay.from_estimator(adapted, wide[3:6], **given)
    bars, words = drawn.ax_.patches, [t.get_text() for t in drawn.ax_.get_yticklabels()]
    assert words[0] == "with other patients' features"
    assert words[-2:] == ["4 other features", "this patient"]
    assert "sex = woman" in words
    widths = np.abs([bar.get_width() for bar in bars[:-1]])
    assert np.all(np.diff(widths) <= 0)
    (prediction,) = adapted.predict(wide[4:5], time=DAYS[4:5])
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(prediction)
    assert drawn.ax_.get_title() == ""

"""Training and shrinkage are drawn as the model holds them."""

import numpy as np
import pytest

from ehrmeta import MAML, MetaClassifier, MetaRegressor
from ehrmeta.errors import DataError
from ehrmeta.report import HistoryDisplay, ShrinkageDisplay

RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(40), 6)
X, Y = RNG.normal(size=(240, 1)), RNG.normal(0, 3, 40)[GROUPS] + RNG.normal(50, 1, 240)


@pytest.fixture(scope="module")
def model() -> MetaRegressor:
    return MetaRegressor(MAML(), max_steps=60, random_state=0).fit(X, Y, groups=GROUPS)


def test_every_check_of_the_training_is_drawn(model):
    training, held_out, best = HistoryDisplay.from_estimator(model).ax_.lines
    np.testing.assert_array_equal(training.get_ydata(), [h["loss"] for h in model.history_])
    losses = [h["held_out_loss"] for h in model.history_]
    np.testing.assert_array_equal(held_out.get_ydata(), losses)
    assert best.get_xdata()[0] == model.history_[int(np.argmin(losses))]["step"]


def test_the_title_is_the_shrinkage_of_the_adapted_tasks():
    y = Y + RNG.normal(0, 5, 240)  # one noisy row says much less than six
    model = MetaRegressor(max_steps=5, random_state=0).fit(X, y, groups=GROUPS)
    few = np.tile(np.arange(6) < 1, 40)
    one, all_rows = (model.adapt(X[m], y[m], groups=GROUPS[m]) for m in (few, few | True))
    shares = []
    for adapted in (one, all_rows):
        display = ShrinkageDisplay.from_estimator(adapted)
        percent = 100 * adapted.eta_shrinkage_
        assert display.ax_.get_title(loc="left") == f"shrinkage {percent:.0f} %"
        shares.append(np.std(display.effects))
    assert 0.0 < shares[0] < shares[1]
    assert display.prior_sd == pytest.approx(3.0, rel=0.6)  # in the unit of the outcome


def test_what_cannot_be_drawn_is_refused(model):
    with pytest.raises(DataError, match="has no training history"):
        HistoryDisplay.from_estimator(MetaRegressor())
    with pytest.raises(DataError, match="needs at least two tasks"):
        ShrinkageDisplay.from_estimator(model.adapt(X[:2], Y[:2]))
    risk = MetaClassifier(max_steps=2, random_state=0).fit(X, Y > 50, groups=GROUPS)
    with pytest.raises(DataError, match="by a MetaClassifier"):
        ShrinkageDisplay.from_estimator(risk.adapt(X, Y > 50, groups=GROUPS))

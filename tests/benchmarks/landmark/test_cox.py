import numpy as np
from statsmodels.duration.hazard_regression import PHReg

from benchmarks.landmark.cox import CauseSpecificCox
from ehrmeta import survival_array
from ehrmeta.evaluation import aalen_johansen


def simulated(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    first = rng.exponential(10 * np.exp(-X))
    until = rng.uniform(0, 12, n)
    event = np.where(first.min(1) <= until, 1 + first.argmin(1), 0)
    return X, survival_array(event, np.minimum(first.min(1), until))


def test_cox_is_that_of_statsmodels():
    X, y = simulated()
    y["time"] = np.ceil(10 * y["time"])  # ties
    cox = CauseSpecificCox(penalty=0.0).fit(X, y)
    for cause in (1, 2):
        model = PHReg(y["time"], X, status=y["event"] == cause, ties="breslow")
        np.testing.assert_allclose(cox.coef_[cause], model.fit(disp=False).params, atol=1e-4)


def test_cox_that_may_use_nothing_is_aalen_johansen():
    X, y = simulated()
    cox = CauseSpecificCox(penalty=1e9).fit(X, y)
    for cause in (1, 2):
        risk = cox.predict_cumulative_incidence(X[:1], [2.0, 6.0], cause=cause)[0]
        expected = aalen_johansen(y, times=[2.0, 6.0], cause=cause)
        np.testing.assert_allclose(risk, expected, atol=0.01)

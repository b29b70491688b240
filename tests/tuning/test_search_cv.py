"""The search is an estimator of scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_regressor
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ehrmeta import MetaSearchCV, PatientKFold, adapt
from ehrmeta.errors import NotFittedError
from tests.tuning.small import SPACE, lines, ridge


class TestMetaSearchCV:
    def test_it_refits_the_best_parameters(self) -> None:
        data = lines()
        search = MetaSearchCV(ridge(), 4, space=SPACE, cv=3)
        assert clone(search).get_params()["n_trials"] == 4
        with pytest.raises(NotFittedError):
            search.predict(data["X"])
        search.fit(data["X"], data["y"], groups=data["groups"])
        assert search.best_estimator_.penalty == search.best_params_["penalty"]
        assert search.estimator.penalty == 10.0  # as it was
        results = search.cv_results_
        best = int(np.argmin(results["rank_test_score"]))
        assert results["mean_test_score"][best] == search.best_score_
        assert results["params"][best] == search.best_params_
        shown, query = slice(0, 3), slice(3, 8)
        adapted = search.adapt(data["X"][shown], data["y"][shown])
        assert adapted.predict(data["X"][query]).shape == (5,)
        assert search.score(data["X"], data["y"], groups=data["groups"]) > 0
        assert search.n_features_in_ == 1
        assert is_regressor(search)

    def test_at_the_end_of_a_pipeline(self) -> None:
        data = lines()
        pipeline = make_pipeline(StandardScaler(), MetaSearchCV(ridge(), 2, space=SPACE, cv=3))
        pipeline.fit(data["X"], data["y"], metasearchcv__groups=data["groups"])
        adapted = adapt(pipeline, data["X"][:3], data["y"][:3])
        assert np.isfinite(adapted.predict(data["X"][3:8])).all()

    def test_in_cross_validation(self) -> None:
        data = lines()
        frame = pd.DataFrame({"x": data["X"][:, 0], "patient": data["groups"]})
        search = MetaSearchCV(ridge(task="patient"), 2, space=SPACE, cv=3)
        folds = PatientKFold(2, random_state=0, task="patient")
        assert (cross_val_score(search, frame, data["y"], cv=folds) > 0).all()

"""Hyper-parameter search as a scikit-learn estimator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if

from ehrmeta.errors import NotFittedError
from ehrmeta.estimators import Adapted
from ehrmeta.estimators._base import TaskEstimator
from ehrmeta.tuning.comparison import full_trials, sign_of
from ehrmeta.tuning.objective import Scoring
from ehrmeta.tuning.search import tune
from ehrmeta.tuning.space import Space

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def _classifies(search: MetaSearchCV) -> bool:
    return hasattr(search.estimator, "predict_proba")


@dataclass(eq=False, repr=False)
class MetaSearchCV(MetaEstimatorMixin, BaseEstimator):
    """Estimator whose `fit` searches the hyper-parameters, then fits the best setting.

    Parameters
    ----------
    estimator : TaskEstimator
    n_trials : int
    space, timeout, sampler, pruner, storage, study_name, scoring, cv, refit, random_state
        As in `tune`.

    Attributes
    ----------
    best_estimator_ : estimator
        Fitted to all rows, if `refit`.
    best_params_ : dict
    best_score_ : float
        Mean error (or score) over folds.
    cv_results_ : dict of str to ndarray, (trial,)
        As in scikit-learn's searches: ``params``, ``mean_test_score`` (errors if `scoring` names
        one, NaN for trials stopped early), ``rank_test_score``, ``trial_seconds``, and
        ``judged_in_full``: whether a trial was evaluated on all folds.
    study_ : optuna.Study
    classes_, n_features_in_, feature_names_in_
        Those of the best estimator.

    Examples
    --------
    >>> from ehrmeta import MetaRegressor, MetaSearchCV, MetaSGD, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=40, n_points=8, random_state=0)
    >>> model = MetaRegressor(MetaSGD(), max_steps=5, random_state=0)
    >>> search = MetaSearchCV(model, n_trials=2, space=["algorithm__inner_lr"], cv=2)
    >>> search.fit(X, y, groups=groups).adapt(X[:3], y[:3]).predict(X[3:8]).shape
    (5,)
    """

    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True, "time": True}
    __metadata_request__score: ClassVar[dict[str, bool]] = {"groups": True, "time": True}

    estimator: TaskEstimator
    n_trials: int = 30
    _: KW_ONLY
    space: Space | None = None
    timeout: float | None = None
    sampler: BaseSampler | None = None
    pruner: BasePruner | Literal[False] | None = None
    storage: str | Path | None = None
    study_name: str | None = None
    scoring: Scoring = None
    cv: Any = 5
    refit: bool = True
    random_state: int = 0

    def fit(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Self:
        """Search, then fit the best setting to all rows; arguments as in the estimator's `fit`."""
        settings = self.get_params(deep=False)
        estimator = settings.pop("estimator")
        tuned = tune(estimator, X, y, groups=groups, time=time, **settings)
        self.best_params_, self.best_score_ = tuned.params, tuned.value
        self.study_, self.cv_results_ = tuned.study, _results(tuned.study)
        if self.refit:
            self.best_estimator_ = tuned.model
        return self

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Adapted:
        """Adapt the best estimator to new tasks."""
        return self._best().adapt(X, y, groups=groups, time=time)

    def unadapted(self) -> Adapted:
        """The best estimator's population model, with intervals and quantiles."""
        return self._best().unadapted()

    def predict(self, X: Any, *, time: Any = None) -> npt.NDArray[Any]:
        """Population prediction of the best estimator."""
        return self._best().predict(X, time=time)

    @available_if(_classifies)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, *, time: Any = None) -> npt.NDArray[np.float64]:
        """Class probabilities of the best estimator's population model."""
        best: Any = self._best()
        return np.asarray(best.predict_proba(X, time=time))

    def score(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> float:
        """k-shot score of the best estimator; larger is better."""
        best: Any = self._best()
        return float(best.score(X, y, groups=groups, time=time))

    def __getattr__(self, name: str) -> Any:
        """Read columns and classes from the best estimator."""
        is_fitted = name in ("classes_", "n_features_in_", "feature_names_in_")
        if not is_fitted or "best_estimator_" not in vars(self):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(self.best_estimator_, name)

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        for name in ("estimator_type", "classifier_tags", "regressor_tags", "input_tags"):
            setattr(tags, name, getattr(inner, name))
        return tags

    def _best(self) -> TaskEstimator:
        if not hasattr(self, "best_estimator_"):
            raise NotFittedError(
                "This MetaSearchCV instance has no fitted estimator. Call 'fit' with refit=True "
                "before using it."
            )
        best: TaskEstimator = self.best_estimator_
        return best


def _results(study: optuna.Study) -> dict[str, npt.NDArray[Any]]:
    """The trials of a study in the format of scikit-learn's searches."""
    trials = study.get_trials(deepcopy=False)
    full = {trial.number: trial.values[0] for trial in full_trials(study)}
    complete = [trial.number in full for trial in trials]
    scores = np.array([full.get(trial.number, np.nan) for trial in trials])
    ranked = np.where(complete, sign_of(study) * scores, np.inf)
    order = np.argsort(np.argsort(ranked, kind="stable"))
    seconds = [t.duration.total_seconds() if t.duration else np.nan for t in trials]
    return {
        "params": np.array([trial.params for trial in trials], dtype=object),
        "mean_test_score": scores,
        "rank_test_score": order + 1,
        "trial_seconds": np.array(seconds),
        "judged_in_full": np.array(complete),
    }

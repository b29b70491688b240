"""Meta-learning for patients and cohorts: learn over many, adapt to one more from a few rows.

Data: `load_dataset`, `Table`, `Schema`. Models: `MetaRegressor` and `MetaClassifier` with any
algorithm, `TreatmentResponse`. Scores and search: `k_shot_curve`, `KShotScorer`, `tune`. In rooms
of their own: `ehrmeta.baselines` (what to beat), `ehrmeta.evaluation` (scores of risks, regressions
and survival), `ehrmeta.report` (pictures and tables), `ehrmeta.algorithms` (the contract of a new
one) and `ehrmeta.errors`. The scripts in ``tutorials/`` begin with ``01_quickstart.py``.
"""

from ehrmeta.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)

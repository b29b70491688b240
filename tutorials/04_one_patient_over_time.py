# %% [markdown]
"""
One patient over time: when does a patient stop looking like the population?
============================================================================
Before the first value a prediction can only be the population's. Every visit tells more. Here
the visits of one patient arrive one at a time, as in a clinic, and the model says after each
how wide its interval is and how much of the prediction is the patient's own.
"""

# %%
import tempfile
import warnings
from pathlib import Path

import pandas as pd

from ehrmeta import MetaRegressor, load_dataset
from ehrmeta.errors import AtypicalWarning
from ehrmeta.report import ExplanationDisplay, TrajectoryDisplay

hdl = load_dataset("nafld-hdl")
few, _ = hdl.split(test_fraction=0.9, random_state=0)
train, test = few.split(test_fraction=0.3, random_state=0)
model = MetaRegressor(max_steps=100, random_state=0, verbose=False)
model.fit(train.X, train.y, groups=train.groups, time=train.time)

# %% [markdown]
# At every visit: what was to be expected of it, and what came. `unadapted` is a task without
# rows; `update` returns a new one and leaves the old one as it was, so both can be kept.

# %%
visits = pd.Series(test.groups).value_counts(sort=False)
patient = test.take(test.groups == visits.index[visits >= 8][0])
X, y, day = patient.X, patient.y, patient.time
now = model.unadapted()
story = []
for visit in range(8):
    row = slice(visit, visit + 1)
    (low, high), *_ = now.predict_interval(X[row], time=day[row], confidence_level=0.9)
    story.append(
        {
            "values seen": visit,
            "years ahead": (day[visit] - day[visit - 1]) / 365.25 if visit else float("nan"),
            "expected": now.predict(X[row], time=day[row])[0],
            "90 % low": low,
            "90 % high": high,
            "came": y[visit],
            "own weight": now.own_weight(X[row], time=day[row])[0],
        }
    )
    now = now.update(X[row], y[row], time=day[row])
print(pd.DataFrame(story).set_index("values seen").round(2))

# %% [markdown]
# `own_weight` is 1 - posterior / prior variance: 0 before the first value, and the nearer to 1
# the more the patient's own values settle the matter. It falls with the time ahead, since what
# was measured long ago says less, and the interval widens again.

# %%
latest = slice(7, 8)
ahead = {}
for years in (0.1, 1, 3, 10):
    then, when = X[latest].assign(age=X["age"] + years), day[latest] + years * 365.25
    (low, high), *_ = now.predict_interval(then, time=when, confidence_level=0.9)
    (own,) = now.own_weight(then, time=when)
    ahead[f"in {years} years"] = {"width": high - low, "own weight": own}
print(pd.DataFrame(ahead).T.round(2))

# %% [markdown]
# Why is the next value predicted as it is? Each value adds its surprise, how far it lay from what
# the population expected, times its weight; the parts add up to the prediction.

# %%
why = now.explain(X[latest], time=day[latest])
print(why[["part", "before", "surprise", "weight", "contribution"]].round(2).to_string(index=False))
assert abs(why["contribution"].sum() - now.predict(X[latest], time=day[latest])[0]) < 0.01

# %% [markdown]
# The same patient in two pictures.

# %%
folder = Path(tempfile.mkdtemp())
display = TrajectoryDisplay.from_estimator(model, X, y, time=day, shots=5)
display.figure_.savefig(folder / "patient.png")
display = ExplanationDisplay.from_estimator(now, X[latest], time=day[latest])
display.figure_.savefig(folder / "why.png")
print("pictures:", folder)

# %% [markdown]
# What would a shifted decimal point do? The value is accepted, but `AtypicalWarning` says that the
# patient is unlike all others.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", AtypicalWarning)
    wrong = model.adapt(X[:3], y[:3] * [1, 10, 1], time=day[:3])
print(caught[0].message)
print("prior-predictive p:", wrong.atypical_)

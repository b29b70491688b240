# %% [markdown]
"""
One patient over time: how fast does a forecast become individual?
==================================================================
Before a patient's first value, the only possible prediction is that for the population. Every visit
adds information. Here the visits of one patient arrive one at a time, as in a clinic. After each of
them, the model reports the width of its interval, and how much of the prediction comes from the
patient's own values.
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
# For every visit, print the forecast made before it and the observed value. `unadapted` returns a
# patient without rows. `update` returns a new adapted patient and does not change the old one.

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
            "observed": y[visit],
            "own weight": now.own_weight(X[row], time=day[row])[0],
        }
    )
    now = now.update(X[row], y[row], time=day[row])
print(pd.DataFrame(story).set_index("values seen").round(2))

# %% [markdown]
# `own_weight` is 1 - posterior / prior variance. It is 0 before the first value, and approaches 1
# the more the prediction is determined by the patient's own values. It decreases with the time
# ahead, because old values say less about the distant future, and the interval becomes wider again.

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
# Why does the model predict this value? Each earlier value contributes its surprise (its difference
# from the value expected for the population) times its weight. The contributions sum to the
# prediction.

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
# What would a shifted decimal point do? The value is accepted, but an `AtypicalWarning` says that
# the patient is unlike the training patients.

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", AtypicalWarning)
    wrong = model.adapt(X[:3], y[:3] * [1, 10, 1], time=day[:3])
print(caught[0].message)
print("prior-predictive p:", wrong.atypical_)

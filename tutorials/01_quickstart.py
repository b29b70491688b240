# %% [markdown]
"""
Quickstart: what will this patient's HDL be?
============================================
HDL cholesterol was measured repeatedly in 10,190 people in Rochester. A new patient has three
values. What will the later values be, and how certain is the forecast? A model learns from many
patients how patients differ. `adapt` then uses the three values to forecast for this patient.
"""

# %%
import tempfile
from pathlib import Path

import pandas as pd

from ehrmeta import MetaRegressor, Population, load_dataset
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.report import KShotDisplay, TrajectoryDisplay

hdl = load_dataset("nafld-hdl")
print(hdl)

# %% [markdown]
# Split by patient, never by row, so that the model has seen no visit of a test patient. To save
# time, this tutorial uses a tenth of the patients and fewer training steps than the default.

# %%
few, _ = hdl.split(test_fraction=0.9, random_state=0)
train, test = few.split(test_fraction=0.3, random_state=0)
model = MetaRegressor(max_steps=100, random_state=0, verbose=False)
model.fit(train.X, train.y, groups=train.groups, time=train.time)

# %% [markdown]
# The first three visits of every test patient are the support, the later visits the query. One
# call adapts to all patients; the model itself does not change.

# %%
seen, later = test.support_query(shots=3)
patients = model.adapt(seen.X, seen.y, groups=seen.groups, time=seen.time)
own = patients.predict(later.X, groups=later.groups, time=later.time)
interval = patients.predict_interval(
    later.X, groups=later.groups, time=later.time, confidence_level=0.9
)
population = model.predict(later.X, time=later.time)  # uses age and sex, but no HDL value
print(f"mean error, not adapted: {abs(later.y - population).mean():.1f} mg/dL")
print(f"mean error, adapted:     {abs(later.y - own).mean():.1f} mg/dL")
inside = (interval[:, 0] <= later.y) & (later.y <= interval[:, 1])
print(f"values inside their 90 % interval: {inside.mean():.0%}")

# %% [markdown]
# Is that good? Compare with simple baselines. With few rows per patient, the last value and a
# linear mixed model are hard to beat. `Population` is a network that does not adapt. The scores
# are errors of later values, with equal weight for every patient.

# %%
peers = {
    "population": MetaRegressor(Population(), max_steps=100, random_state=0, verbose=False),
    "last value": LastValue(),
    "mixed model": MixedEffects(),
}
for peer in peers.values():
    peer.fit(train.X, train.y, groups=train.groups, time=train.time)
display = KShotDisplay.from_estimator(
    {**peers, "ehrmeta": model}, test.X, test.y, groups=test.groups, time=test.time, n_bootstrap=200
)
folder = Path(tempfile.mkdtemp())
display.figure_.savefig(folder / "errors.png")

# %% [markdown]
# One patient, as in the README: the values shown to the model, the forecast with its interval,
# and the later values.

# %%
visits = pd.Series(test.groups).value_counts(sort=False)
patient = test.take(test.groups == visits.index[visits >= 10][0])
display = TrajectoryDisplay.from_estimator(model, patient.X, patient.y, time=patient.time, shots=3)
display.figure_.savefig(folder / "patient.png")
print("pictures:", folder)

# %% [markdown]
# `model.save("hdl.ehrmeta")` saves the model, and `MetaRegressor.load` loads it: see
# 10_privacy_and_limits.

# %% [markdown]
"""
A new hospital: after how many patients does the model fit there?
=================================================================
Who needs little warfarin (21 mg a week or less) bleeds on the usual dose. A risk model from
other hospitals meets one that it has never seen: its patients, its habits and its laboratory
differ. Here the task is the site: learn over 16 sites how sites differ, then adapt to a new one
from its first 20 or 50 patients.
"""

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ehrmeta import DeepMixedEffects, MetaClassifier, load_dataset
from ehrmeta.evaluation import risk_scores
from ehrmeta.report import CalibrationDisplay

warfarin = load_dataset("warfarin-iwpc")
train, test = warfarin.split(test_fraction=0.27, random_state=0)  # by site
print(f"{train.n_tasks} sites to learn from, {test.n_tasks} new ones")

# %% [markdown]
# `feature_slopes=True` is the learner for cohorts of tens of rows or more: a site may differ in
# its level and in what every feature does there. How much sites differ is learned from the sites.

# %%
model = MetaClassifier(
    DeepMixedEffects(feature_slopes=True), max_steps=100, random_state=0, verbose=False
)
model.fit(train.X, train.y <= 21, groups=train.groups)

# %% [markdown]
# The model of the other sites, then adapted to 20 and to 50 patients of each new one. All are
# judged on the same patients: those who were not among the 50.

# %%
fifty, others = test.support_query(shots=50, random_state=0)
low_dose = others.y <= 21
risks = {"no patient": model.predict_proba(others.X)[:, 1]}
rank = pd.Series(fifty.groups).groupby(fifty.groups).cumcount().to_numpy()
for k in (20, 50):
    first = fifty.take(rank < k)
    site = model.adapt(first.X, first.y <= 21, groups=first.groups)
    risks[f"{k} patients"] = site.predict_proba(others.X, groups=others.groups)[:, 1]

scores = pd.DataFrame(
    {
        name: risk_scores(
            low_dose, risk, metrics=("log_loss", "auroc", "calibration_slope", "e_o_ratio")
        )
        for name, risk in risks.items()
    }
)
print(scores.T.round(3))

# %% [markdown]
# Calibration matters more than ranking here: of patients with a risk of 30 %, 30 in 100 should
# need little. Look at each new site by itself: expected over observed events (E:O), 1 where the
# risks add up.

# %%
table = pd.DataFrame({"site": others.groups, "observed": low_dose, **risks})
sites = table.groupby("site").sum()
expected = sites.drop(columns="observed").div(sites["observed"], axis=0)
print(expected.assign(events=sites["observed"]).round(2))
off = np.log(expected).abs().mean()
print("factor by which a site's expected events are off, mean of the sites:")
print(np.exp(off).round(2))

# %% [markdown]
# Twenty patients already mend most of the level, which is what differs most between sites.
# Ranking hardly changes, and a look at the slope keeps one honest: below 1 the risks are too far
# apart, which is the price of learning slopes from 50 patients.

# %%
figure, axes = plt.subplots(1, 2, figsize=(13, 6.5), layout="constrained")
for ax, name in zip(axes, ("no patient", "50 patients"), strict=True):
    CalibrationDisplay.from_predictions(low_dose, risks[name], name=name, ax=ax)
folder = Path(tempfile.mkdtemp())
figure.savefig(folder / "calibration.png")
print("pictures:", folder)

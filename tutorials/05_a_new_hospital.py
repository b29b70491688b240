# %% [markdown]
"""
A new hospital: how many of its patients does the model need?
=============================================================
Patients who need little warfarin (21 mg per week or less) are at risk of bleeding on the usual
dose. A risk model from other hospitals is to be used in a new one, which differs in its patients,
practice and laboratory. Here a task is a site: the model learns from 16 sites how sites differ, and
adapts to a new site from its first 20 or 50 patients.
"""

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ehrmeta import MetaClassifier, load_dataset
from ehrmeta.evaluation import risk_scores
from ehrmeta.report import CalibrationDisplay

warfarin = load_dataset("warfarin-iwpc")
train, test = warfarin.split(test_fraction=0.27, random_state=0)  # by site
print(f"{train.n_tasks} sites to learn from, {test.n_tasks} new ones")

# %% [markdown]
# The table's schema says that tasks are cohorts, so the default is a mixed model: sites may differ
# in their level and in the effect of every feature. How much they differ is estimated from the
# training sites.

# %%
model = MetaClassifier(random_state=0, verbose=False)
model.fit(train.X, train.y <= 21, groups=train.groups)

# %% [markdown]
# Compare the unadapted model with the model adapted to 20 and to 50 patients of each new site. All
# are scored on the same patients: those who are not among the 50.

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
# Calibration matters more than ranking here: of 100 patients with a risk of 30 %, 30 should need a
# low dose. Look at each new site separately: the ratio of expected to observed events (E:O) is 1 if
# the risks are right on average.

# %%
table = pd.DataFrame({"site": others.groups, "observed": low_dose, **risks})
sites = table.groupby("site").sum()
expected = sites.drop(columns="observed").div(sites["observed"], axis=0)
print(expected.assign(events=sites["observed"]).round(2))
off = np.log(expected).abs().mean()
print("factor between expected and observed events, averaged over sites:")
print(np.exp(off).round(2))

# %% [markdown]
# Twenty patients already correct most of the level, in which sites differ most. Ranking hardly
# changes. Check the calibration slope as well: a slope below 1 means that the risks are too
# extreme, which is the price of estimating slopes from 50 patients.

# %%
figure, axes = plt.subplots(1, 2, figsize=(13, 6.5), layout="constrained")
for ax, name in zip(axes, ("no patient", "50 patients"), strict=True):
    CalibrationDisplay.from_predictions(low_dose, risks[name], name=name, ax=ax)
folder = Path(tempfile.mkdtemp())
figure.savefig(folder / "calibration.png")
print("pictures:", folder)

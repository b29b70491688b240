# %% [markdown]
"""
Treatment response: what does the drug change, for whom, and at this centre?
============================================================================
In a trial of 51 institutions, patients with cystic fibrosis inhaled rhDNase or placebo; the
outcome is an exacerbation that needed antibiotics. `TreatmentResponse` learns over centres what
the treatment changes and adapts to one more. Effects are differences of probabilities here:
-0.1 is ten fewer patients in a hundred.
"""

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ehrmeta import TreatmentResponse, load_dataset, make_treatment

trial = load_dataset("rhdnase")
train, test = trial.split(test_fraction=0.2, random_state=0)  # by institution
print(trial)

# %% [markdown]
# It was randomised 1:1, so say that the propensity is 0.5; without `propensity` it is learned,
# for treatments that nobody drew by lot. All features must be known before the treatment.

# %%
model = TreatmentResponse(propensity=0.5, random_state=0)
model.fit(train.X, train.y, treatment=train.treatment, groups=train.groups)
print("effect on average:", round(model.ate(train.X), 3))
print("95 % interval for a new centre:", model.ate_interval(train.X).round(3))
print("form of the effect:", model.forms_, "| differences between centres:", model.variation_)

# %% [markdown]
# Simple answers are the rule: the form is the simplest that explains the data about as well as
# the best one, and it may well be that patients and centres cannot be told apart. So ask first
# what the rows of every centre say by themselves, and together.

# %%
print(model.tasks_.pooled_effect())

# %% [markdown]
# Two intervals for a new centre, and they differ. The model's holds if centres do not differ,
# which is what it settled for: it did not find that they do. The other one keeps what a dozen
# patients a centre cannot exclude. Be as careful as the wider one.

# %% [markdown]
# Centres that were not in the fit: `adapt` takes their patients so far. With a dozen patients a
# centre is mostly what the others were.

# %%
centres = model.adapt(test.X, test.y, treatment=test.treatment, groups=test.groups)
first = test.take(test.groups == centres.labels_[0])
print(f"first new centre, {len(first.y)} patients:")
print(centres.ate_interval(first.X, groups=first.groups).round(3))

# %% [markdown]
# What to do? `recommend` names the better arm at each row, and abstains where the interval of the
# margin holds 0. `policy_value` says what would have come of a policy among patients that the
# model has not seen: here, of treating everyone and of treating no one.

# %%
advice = centres.recommend(test.X, higher_is_better=False, groups=test.groups)
print(advice.groupby(["action", "abstain"]).size())
for policy in (1, 0):
    print(f"all on arm {policy}:", centres.policy_value(policy))

# %%
print(centres.diagnostics())

# %% [markdown]
# Does it find what is there? In a simulation the truth is known: sites differ in level, in whom
# they treat and in what the treatment does; nobody drew lots, so the propensity is learned.

# %%
sites = make_treatment(20, n_patients=(60, 120), random_state=0)
new = sites.groups >= 15
known = TreatmentResponse(final="linear", n_folds=2, random_state=0).fit(
    sites.X[~new], sites.y[~new], treatment=sites.treatment[~new], groups=sites.groups[~new]
)
adapted = known.adapt(
    sites.X[new], sites.y[new], treatment=sites.treatment[new], groups=sites.groups[new]
)
truth = pd.Series(sites.effect[new]).groupby(sites.groups[new]).mean()
found = pd.DataFrame(
    [
        adapted.ate_interval(sites.X[sites.groups == site], groups=np.full(n, site))
        for site, n in zip(*np.unique(sites.groups[new], return_counts=True), strict=True)
    ],
    index=truth.index,
    columns=["low", "high"],
)
print(found.assign(truth=truth).round(2))

# %%
figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
middle = found.mean(axis=1)
ax.errorbar(middle, found.index, xerr=(found["high"] - found["low"]) / 2, fmt="o", label="adapted")
ax.plot(truth, truth.index, "kx", label="truth")
ax.axvline(known.ate(sites.X[new]), color="gray", linestyle=":", label="population")
ax.set(xlabel="average effect", ylabel="site", yticks=list(found.index))
ax.legend(loc="upper left")
folder = Path(tempfile.mkdtemp())
figure.savefig(folder / "sites.png")
print("pictures:", folder)

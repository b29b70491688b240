# %% [markdown]
"""
Treatment response: what is the effect of the drug, for whom, and at this centre?
=================================================================================
In a trial at 51 institutions, patients with cystic fibrosis inhaled rhDNase or placebo. The outcome
is an exacerbation that needed antibiotics. `TreatmentResponse` learns the treatment effect from
many centres and adapts to a new one. Effects are differences of probabilities here: -0.1 means ten
fewer exacerbations per hundred patients.
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
# The trial was randomised 1:1, so the propensity is 0.5. Without `propensity=` it is estimated, for
# treatments that were not randomised. All features must be known before the treatment.

# %%
model = TreatmentResponse(propensity=0.5, random_state=0)
model.fit(train.X, train.y, treatment=train.treatment, groups=train.groups)
print("effect on average:", round(model.ate(train.X), 3))
print("95 % interval for a new centre:", model.ate_interval(train.X).round(3))
print("form of the effect:", model.forms_, "| differences between centres:", model.variation_)

# %% [markdown]
# The model prefers simple answers. It takes the simplest form of the effect that fits about as well
# as the best one, and often finds no evidence that the effect differs between patients or centres.
# So look first at the effects estimated in each centre separately, and pool them.

# %%
print(model.tasks_.pooled_effect())

# %% [markdown]
# The two intervals for a new centre differ. The model's is valid if effects are the same in all
# centres: it selected this because it found no evidence of a difference. The pooled one includes
# the differences that a dozen patients per centre cannot exclude. Rely on the wider one.

# %% [markdown]
# For new centres, pass the patients treated so far to `adapt`. With a dozen patients, the estimate
# for a centre comes mostly from the other centres.

# %%
centres = model.adapt(test.X, test.y, treatment=test.treatment, groups=test.groups)
first = test.take(test.groups == centres.labels_[0])
print(f"first new centre, {len(first.y)} patients:")
print(centres.ate_interval(first.X, groups=first.groups).round(3))

# %% [markdown]
# Which arm should be given? `recommend` returns the better arm for each row, and abstains if the
# interval of the margin contains 0. `policy_value` estimates the mean outcome under a policy, in
# patients that the model has not seen: here, treating everyone and treating no one.

# %%
advice = centres.recommend(test.X, higher_is_better=False, groups=test.groups)
print(advice.groupby(["action", "abstain"]).size())
for policy in (1, 0):
    print(f"all on arm {policy}:", centres.policy_value(policy))

# %%
print(centres.diagnostics())

# %% [markdown]
# Does the model find the true effects? In a simulation they are known. Here sites differ in their
# level, in whom they treat and in the treatment effect. Treatment is not randomised, so the
# propensity is estimated.

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

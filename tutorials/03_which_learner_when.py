# %% [markdown]
"""
Which learner when: does a network help patients with a handful of visits?
==========================================================================
One argument changes the learner, and all are fitted, adapted and scored alike. So the question
is put to the data: serum albumin in 312 patients with liver disease, four learners and a
baseline, on patients that none has seen. `docs/which_learner.md` says where to begin and why.
"""

# %%
import tempfile
from pathlib import Path

from ehrmeta import (
    BayesianHead,
    DeepMixedEffects,
    MetaRegressor,
    MetaSGD,
    Population,
    k_shot_curve,
    load_dataset,
)
from ehrmeta.baselines import LastValue
from ehrmeta.report import KShotDisplay, k_shot_table

table = load_dataset("pbcseq", outcome="albumin")
train, test = table.split(test_fraction=0.3, random_state=0)

# %%
learners = {
    "not adapted": Population(),
    "gradient steps": MetaSGD(),
    "last layer, exact posterior": BayesianHead(),
    "mixed model (the default)": DeepMixedEffects(),
}
models = {"last value": LastValue()}
for name, learner in learners.items():
    models[name] = MetaRegressor(learner, max_steps=60, random_state=0, verbose=False)
for model in models.values():
    model.fit(train.X, train.y, groups=train.groups, time=train.time)

# %% [markdown]
# `query="fixed"` judges all k on the same visits, those after the third, so that the columns
# compare. Ranges are intervals of the difference to the last row, paired over patients: with 94
# test patients small differences cannot be told from chance.

# %%
curve = k_shot_curve(
    models,
    test.X,
    test.y,
    groups=test.groups,
    time=test.time,
    shots=(1, 2, 3),
    query="fixed",
    reference="mixed model (the default)",
    n_bootstrap=200,
)
print(k_shot_table(curve, reference="mixed model (the default)", unit="g/dL"))

# %%
display = KShotDisplay.from_curve(curve, unit="g/dL")
folder = Path(tempfile.mkdtemp())
display.figure_.savefig(folder / "errors.png")
print("pictures:", folder)

# %% [markdown]
# Why is the last value worst after two? At the second visit of one patient 8.01 g/dL were
# recorded, which is hardly possible. The last value carries it forward; a learner with a prior
# believes a part of it.
#
# With few patients begin with the default: it starts as a linear mixed model and leaves it only
# for a gain on held-out patients. Judge on your own patients, and tune what you compare
# (08_tuning) before you believe a table.

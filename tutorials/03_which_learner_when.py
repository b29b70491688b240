# %% [markdown]
"""
Which learner when: does a network help patients with a handful of visits?
==========================================================================
One argument selects the learner. All learners are fitted, adapted and scored in the same way, so
they are easy to compare on data: here four learners and a baseline forecast serum albumin in 312
patients with liver disease, and are tested on patients that they have not seen.
`docs/which_learner.md` says where to start, and why.
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
# With `query="fixed"`, all k are scored on the same visits, those after the third, so that the
# columns can be compared. Ranges are intervals for the difference from the last row, paired over
# patients. With 94 test patients, small differences cannot be distinguished from chance.

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
# Why is the last value worst at k = 2? At one patient's second visit, 8.01 g/dL was recorded, which
# is hardly possible. The last value carries it forward unchanged; a learner with a prior shrinks it
# toward the population.
#
# With few patients, start with the default: it begins as a linear mixed model and changes only if
# that improves forecasts for held-out patients. Compare learners on your own patients, and tune all
# of them (08_tuning) before you draw conclusions from a table.

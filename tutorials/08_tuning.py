# %% [markdown]
"""
Tuning: are there better settings than the defaults?
====================================================
Settings are compared by their error on patients that were not used in training, after these
patients' first values. `tune` searches with Optuna, using cross-validation over patients. Every
parameter declares a range to search. The small numbers here save time: use 50 trials and full
training in a real study.
"""

# %%
from ehrmeta import MAML, KShotScorer, MetaRegressor, load_dataset, tune
from ehrmeta.tuning import read_space

table = load_dataset("pbcseq", outcome="albumin")
train, test = table.split(test_fraction=0.3, random_state=0)
model = MetaRegressor(MAML(), max_steps=20, score_shots=(3,), random_state=0, verbose=False)
for dimension in read_space(model, ["algorithm__inner_lr", "algorithm__inner_steps"]):
    print(dimension.name, dimension.range)

# %%
tuned = tune(
    model,
    train.X,
    train.y,
    groups=train.groups,
    time=train.time,
    n_trials=4,
    space=["algorithm__inner_lr", "algorithm__inner_steps"],
    cv=2,
)
print(tuned.params, round(tuned.value, 3))

# %% [markdown]
# The smallest of many errors is slightly optimistic. So score the chosen model, `tuned.model`, on
# patients that the study has not seen, and compare it with the default settings.

# %%
model.fit(train.X, train.y, groups=train.groups, time=train.time)
scorer = KShotScorer(shots=(3,))
for name, fitted in (("default", model), ("tuned", tuned.model)):
    error = -scorer(fitted, test.X, test.y, groups=test.groups, time=test.time)
    print(f"{name}: {error:.3f} g/dL")

# %% [markdown]
# More on tuning:
#
# - `tune_resume.py`: a study in a file, stopped and resumed
# - `tune_many_workers.py`: one study in several processes
# - `tune_two_objectives.py`: error and interval calibration as two objectives, and the algorithm
#   as a choice
# - `tune_objective.py`: a plain Optuna objective, if you want to write the loop yourself
# - `docs/tuning.md`: how trials are scored and pruned, and all declared ranges

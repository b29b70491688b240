# %% [markdown]
"""
Tuning: is there a better setting than the one it comes with?
=============================================================
A setting is judged by its error on patients that training has not seen, after their first
values. `tune` searches over folds of patients with Optuna; every parameter declares where it is
worth searching. The small numbers here are for speed: give a study 50 trials and the full
training.
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
# The smallest of many errors is a little too good, so judge the chosen model, `tuned.model`, on
# patients that the study has not seen, beside the model as it comes.

# %%
model.fit(train.X, train.y, groups=train.groups, time=train.time)
scorer = KShotScorer(shots=(3,))
for name, fitted in (("as it comes", model), ("tuned", tuned.model)):
    error = -scorer(fitted, test.X, test.y, groups=test.groups, time=test.time)
    print(f"{name}: {error:.3f} g/dL")

# %% [markdown]
# Where to go on:
#
# - `tune_resume.py`: a study in a file, stopped and resumed
# - `tune_many_workers.py`: one study, many processes
# - `tune_two_objectives.py`: error against honest intervals, the algorithm as a choice
# - `tune_objective.py`: a plain Optuna objective, where you want to write the loop yourself
# - `docs/tuning.md`: how trials are judged and given up, and all declared ranges

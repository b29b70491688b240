# %% [markdown]
"""
Two objectives, and the algorithm as a choice
=============================================
Small errors and honest intervals, or small errors and fast adapting, may pull apart. A study of
several objectives finds the settings that no other one beats in everything. The algorithm itself
is searched here, and each brings the parameters that it declares.
"""

# %%
from ehrmeta import ANIL, MAML, MetaRegressor, load_dataset, tune
from ehrmeta.tuning import read_space

table = load_dataset("pbcseq")
model = MetaRegressor(MAML(), max_steps=20, score_shots=(3,), random_state=0, verbose=False)
space = {"algorithm": [MAML(), ANIL()]}
for dimension in read_space(model, space):
    print(dimension.name, "|", dimension.range, "|", dict(dimension.when))

# %%
tuned = tune(
    model,
    table.X,
    table.y,
    groups=table.groups,
    time=table.time,
    n_trials=4,
    space=space,
    scoring=["rmse_macro", "interval_error"],  # or "adapt_ms"
    cv=2,
    refit=False,
)

# %%
for trial in tuned.study.best_trials:
    error, calibration = trial.values
    print(f"error {error:.3f}, interval error {calibration:.3f}: {trial.params['algorithm']}")

# %% [markdown]
"""
Two objectives, and the algorithm as a choice
=============================================
Small errors and well-calibrated intervals, or small errors and fast adaptation, can be conflicting
goals. A study with several objectives finds the settings that no other setting beats in all of
them. Here the algorithm itself is searched too, with the parameters that each algorithm declares.
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

# %% [markdown]
"""
A study that is stopped and resumed
===================================
A study with a name is stored in a file. To continue it, repeat the same call, in this process or in
another one. `n_trials` counts all trials of the study.
"""

# %%
import tempfile
from pathlib import Path

from ehrmeta import MAML, MetaRegressor, load_dataset, tune

table = load_dataset("pbcseq")
model = MetaRegressor(MAML(), max_steps=20, score_shots=(3,), random_state=0, verbose=False)
file = Path(tempfile.mkdtemp()) / "study.db"


# %% [markdown]
# Every algorithm declares ranges in which to search its parameters. Name the parameters to search,
# or pass your own ranges.


# %%
def search(n_trials: int):
    return tune(
        model,
        table.X,
        table.y,
        groups=table.groups,
        time=table.time,
        n_trials=n_trials,
        space={
            "algorithm__inner_lr": None,  # the declared range
            "algorithm__inner_steps": (1, 4),
            "backbone__hidden": [(16, 16), (32, 32)],
        },
        cv=3,
        storage=file,
        study_name="bilirubin",
    )


# %%
before = search(n_trials=2)
first_two = [trial.params for trial in before.study.trials]
after = search(n_trials=4)  # two more
print("before:", before.value, "after:", after.value)
print("parameters:", after.params)
assert len(after.study.trials) == 4
assert [trial.params for trial in after.study.trials[:2]] == first_two

# %% [markdown]
# `after.model` is fitted to all patients with the best parameters. To view the study in a browser,
# run `optuna-dashboard sqlite:///study.db --host 127.0.0.1`.

# %%
patient = table.take(table.tasks.codes == 0)
adapted = after.model.adapt(patient.X[:3], patient.y[:3], time=patient.time[:3])
print(adapted)

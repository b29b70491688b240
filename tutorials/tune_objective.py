# %% [markdown]
"""
A plain Optuna objective
========================
This does by hand what `tune` does. Settings are compared by their error on patients that were not
used in training, after these patients' first three values. A trial is pruned if it is worse than
others in the first folds.
"""

# %%
import numpy as np
import optuna

from ehrmeta import MAML, MLP, KShotScorer, MetaRegressor, load_dataset

table = load_dataset("pbcseq")  # 312 patients; bilirubin at up to 16 visits
scorer = KShotScorer(shots=(3,))


# %%
def objective(trial: optuna.Trial) -> float:
    algorithm = MAML(
        inner_lr=trial.suggest_float("inner_lr", 1e-3, 0.5, log=True),
        inner_steps=trial.suggest_int("inner_steps", 1, 4),
    )
    width = trial.suggest_categorical("width", [16, 32])
    model = MetaRegressor(algorithm, MLP((width, width)), max_steps=20, random_state=0)
    errors = []
    for train, test in table.kfold(3, random_state=0):  # by patient
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
        errors.append(-scorer(model, test.X, test.y, groups=test.groups, time=test.time))
        trial.report(float(np.mean(errors)), step=len(errors))
        if trial.should_prune():  # saves training on the other folds
            raise optuna.TrialPruned
    return float(np.mean(errors))


# %%
study = optuna.create_study(
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
)
study.optimize(objective, n_trials=5)
print("best error:", study.best_value)
print("best parameters:", study.best_params)

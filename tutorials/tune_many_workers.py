# %% [markdown]
# # One study, many processes
# Any number of processes may work on one study. Start the command in several shells: here two, from
# Python. Should one be killed, another one takes its trial over; no trial is lost or run twice to
# its end. The second shell needs no table: the study knows the command that made it.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

folder = Path(tempfile.mkdtemp())
first = "pbcseq --algorithm maml --search algorithm__inner_lr --folds 2 --max-steps 10 --trials 4"
shared = "--study bilirubin --storage study.journal"
command = [sys.executable, "-m", "ehrmeta", "tune"]

# %%
shells = [subprocess.Popen([*command, *first.split(), *shared.split()], cwd=folder)]
shells.append(subprocess.Popen([*command, *first.split(), *shared.split()], cwd=folder))
assert [shell.wait() for shell in shells] == [0, 0]

# %%
subprocess.run([*command, *shared.split()], cwd=folder, check=True)  # nothing left to do

# %% [markdown]
# With a PostgreSQL server the processes may be on many hosts:
# `--storage postgresql://user:password@host/database`

# %%
backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
study = optuna.load_study(study_name="bilirubin", storage=optuna.storages.JournalStorage(backend))
print([(trial.number, trial.state.name) for trial in study.trials])
assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
assert all(trial.state.is_finished() for trial in study.trials)

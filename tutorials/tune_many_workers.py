# %% [markdown]
"""
One study, many processes
=========================
Any number of processes can work on one study. Start the command in several shells; here Python
starts two. If a process is killed, another one takes over its trial. No trial is lost or completed
twice. Shells that join later do not need to name a table, because the study stores the original
command: `ehrmeta tune --study bilirubin --storage study.journal --trials 50` adds trials to it.
"""

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

folder = Path(tempfile.mkdtemp())
search = "pbcseq --algorithm maml --search algorithm__inner_lr --folds 2 --max-steps 10 --trials 4"
shared = "--study bilirubin --storage study.journal"
command = [sys.executable, "-m", "ehrmeta", "tune", *search.split(), *shared.split()]

# %%
shells = [subprocess.Popen(command, cwd=folder) for _ in range(2)]
assert [shell.wait() for shell in shells] == [0, 0]

# %% [markdown]
# With a PostgreSQL server, the processes can run on several hosts:
# `--storage postgresql://user:password@host/database`

# %%
backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
study = optuna.load_study(study_name="bilirubin", storage=optuna.storages.JournalStorage(backend))
print([(trial.number, trial.state.name) for trial in study.trials])
assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
assert all(trial.state.is_finished() for trial in study.trials)

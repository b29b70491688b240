# %% [markdown]
"""
Privacy and limits: what leaves the hospital with a model file?
===============================================================
A model is to be lent to another hospital. What is in its file, and what is not? And what can
this package not do for you?
"""

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

from ehrmeta import Adapted, MetaRegressor, load_dataset
from ehrmeta.errors import BundleError, DataError

folder = Path(tempfile.mkdtemp())
table = load_dataset("pbcseq")
train, test = table.split(test_fraction=0.3, random_state=0)
model = MetaRegressor(max_steps=50, random_state=0, verbose=False)
model.fit(
    train.X, train.y, groups=train.groups, time=train.time, checkpoint_dir=folder / "checkpoints"
)
model.save(folder / "bilirubin.ehrmeta")

# %% [markdown]
# `ehrmeta inspect` says what a file holds, with `--full` every setting and array: weights, no row,
# no label and no id of a patient. The encoding's means and category names are summaries of the
# training table. Levels of a category that fewer than eleven patients have are not named: `save`
# counts them, and the loaded model predicts their rows as the average level. `save(...,
# rare_levels="keep")` names them, in a file that `inspect` calls patient data.

# %%
inspect = [sys.executable, "-m", "ehrmeta", "inspect", str(folder / "bilirubin.ehrmeta")]
shown = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
print(shown)

# %% [markdown]
# Adapted patients are patient data: their rows are what they were adapted to. They are saved on
# request only, to a file of their own that says so, and never read as a model.

# %%
seen, later = test.support_query(shots=3)
patients = model.adapt(seen.X, seen.y, groups=seen.groups, time=seen.time)
patients.save(folder / "patients.ehrmeta")
again = Adapted.load(folder / "patients.ehrmeta")
query = {"groups": later.groups, "time": later.time}
assert (again.predict(later.X, **query) == patients.predict(later.X, **query)).all()
try:
    MetaRegressor.load(folder / "patients.ehrmeta")
except BundleError as error:
    print(error)

# %% [markdown]
# A file that was damaged, or changed, is refused; nothing in a file is ever run as code.

# %%
damaged = bytearray((folder / "bilirubin.ehrmeta").read_bytes())
damaged[len(damaged) // 2] ^= 1
(folder / "damaged.ehrmeta").write_bytes(damaged)
try:
    MetaRegressor.load(folder / "damaged.ehrmeta")
except BundleError as error:
    print(error)

# %% [markdown]
# A long training can be stopped and goes on from its checkpoints, which hold weights and a digest
# of the data. They are deleted by you, when the model is saved.

# %%
for file in sorted((folder / "checkpoints").iterdir()):
    print(file.name, f"{file.stat().st_size / 1024:.0f} KiB")

# %% [markdown]
# Errors name columns, counts and the ordinal of a task, so that a log can be shown to others.

# %%
try:
    patients.predict(later.X, groups=later.groups + 1000, time=later.time)
except DataError as error:
    print(type(error).__name__, "|", error)

# %% [markdown]
# What a model file does not promise: weights are learned from patients, and nothing here makes
# them differentially private. Whoever may see the file may ask it anything, so share it as you
# would share a regression with many coefficients: after someone has judged the table behind it.
#
# What the package does not do:
#
# - It is research software and no medical device; nothing in it has been tried in care.
# - It finds no error in a plausible value. Units and ranges are yours to state (02_your_own_table).
# - Its intervals hold on average over patients like those it learned from; not for every patient,
#   nor in another hospital (05_a_new_hospital).
# - Effects of treatments rest on what was measured: no table shows that nothing is missing
#   (06_treatment_response).
# - It does not remove names, dates or free text from a table; do that before.
# - Tables are read whole into memory: about 5 GiB for a million patients of 20 visits.

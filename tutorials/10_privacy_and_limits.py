# %% [markdown]
"""
Privacy and limits: what leaves the hospital with a model file?
===============================================================
You want to share a model with another hospital. What does its file contain, and what does it not
contain? And what can this package not do?
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
# `ehrmeta inspect` shows what a file contains, and with `--full` every setting and array. It
# contains weights, but no patient's rows, labels or id. It also contains summaries of the training
# table, such as means and category names. Categories that fewer than eleven patients have are not
# named: `save` reports how many there are, and the loaded model predicts their rows as the average
# category. `save(..., rare_levels="keep")` names them, in a file that `inspect` calls patient data.

# %%
inspect = [sys.executable, "-m", "ehrmeta", "inspect", str(folder / "bilirubin.ehrmeta")]
shown = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
print(shown)

# %% [markdown]
# Adapted patients contain their support rows, so they are patient data. They are saved only if you
# ask for it, to a separate file that is marked as patient data and cannot be loaded as a model.

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
# A damaged or altered file is rejected. Nothing in a file is ever run as code.

# %%
damaged = bytearray((folder / "bilirubin.ehrmeta").read_bytes())
damaged[len(damaged) // 2] ^= 1
(folder / "damaged.ehrmeta").write_bytes(damaged)
try:
    MetaRegressor.load(folder / "damaged.ehrmeta")
except BundleError as error:
    print(error)

# %% [markdown]
# A long training run can be stopped and resumed from its checkpoints, which contain weights and a
# digest of the data. They are not deleted automatically: delete them once the model is saved.

# %%
for file in sorted((folder / "checkpoints").iterdir()):
    print(file.name, f"{file.stat().st_size / 1024:.0f} KiB")

# %% [markdown]
# Error messages contain column names, counts and the number of a task, but no patient's values or
# ids, so logs can be shown to others.

# %%
try:
    patients.predict(later.X, groups=later.groups + 1000, time=later.time)
except DataError as error:
    print(type(error).__name__, "|", error)

# %% [markdown]
# What a model file does not guarantee: weights are learned from patients, and they are not
# differentially private. Whoever has the file can query the model without limit. So share it as you
# would share a regression with many coefficients, after someone has assessed the training table.
#
# What the package does not do:
#
# - It is research software, not a medical device, and has not been tested in care.
# - It does not detect errors in plausible values. You must declare units and ranges
#   (02_your_own_table).
# - Its intervals hold on average over patients like those in training, but not for every single
#   patient or in another hospital (05_a_new_hospital).
# - Treatment effects depend on the features that were measured. No table can show that all
#   confounders are among them (06_treatment_response).
# - It does not remove names, dates or free text from a table. Do that first.
# - Tables are read into memory as a whole: about 5 GiB for a million patients with 20 visits each.

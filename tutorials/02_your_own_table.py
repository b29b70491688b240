# %% [markdown]
"""
Your own table: can these visits be used as they are?
=====================================================
A file from a clinic is never clean. This one has typical faults. It contains visits of patients
with liver disease (the bundled pbcseq data). Some bilirubin values are in umol/L, one visit was
entered twice, one result is missing, and a column holds lab numbers. The package lists the
problems before a model is fitted, and reports every value that it changes.
"""

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ehrmeta import (
    Clock,
    ConformalRegressor,
    Feature,
    MetaRegressor,
    Outcome,
    Schema,
    Table,
    check_table,
    load_dataset,
)
from ehrmeta.errors import DataError
from ehrmeta.report import forecast_report

clean = load_dataset("pbcseq")
visits = pd.DataFrame(
    {
        "patient": clean.groups,
        "date": pd.Timestamp("1975-01-01") + pd.to_timedelta(clean.time, unit="D"),
        "age": clean.X["age"].round(1),
        "sex": clean.X["sex"],
        "albumin": clean.X["albumin"],
        "bilirubin": clean.y,
    }
)
visits["lab_number"] = range(70000, 70000 + len(visits))
visits.loc[visits.index[::400], "bilirubin"] *= 17.1 * 10  # umol/L, the decimal point lost
visits.loc[visits.index[7], "bilirubin"] = None
visits = pd.concat([visits, visits.iloc[[20]]])  # entered twice
folder = Path(tempfile.mkdtemp())
visits.to_csv(folder / "visits.csv", index=False)
frame = pd.read_csv(folder / "visits.csv")
print(frame.head(3))

# %% [markdown]
# `Schema.infer` guesses the role of every column. A lab value of the visit to predict is not known
# before that visit, so name it in `measured`: then only its last earlier value is used. Other
# columns that vary within patients are treated the same way, with a warning. Columns that are
# known ahead, such as planned doses, belong in `known`. Units are UCUM codes.

# %%
guess = Schema.infer(
    frame,
    task="patient",
    time="date",
    outcome="bilirubin",
    measured=["albumin"],
    units={"bilirubin": "mg/dL", "albumin": "g/dL", "age": "a"},
)
print(guess)

# %% [markdown]
# `check_table` lists all problems at once. A table with errors cannot be used; whether a warning
# matters is for you to decide. The command is `ehrmeta check visits.csv --task patient --time date
# --target bilirubin`.

# %%
findings = check_table(frame, guess)
print(findings)

# %% [markdown]
# So drop the lab number and the row with the missing outcome, use the first entry of the visit that
# was entered twice, and declare a plausible range for bilirubin. Write this down once, in a schema.
# `to_toml` saves the schema as a file to store with the data (`ehrmeta fit visits.csv --schema
# visits.toml`).

# %%
schema = Schema(
    features=(
        Feature("age", unit="a", low=18, high=110),
        Feature("sex", kind="categorical", role="static"),
        Feature("albumin", role="measured", unit="g/dL", low=0.5, high=8),
    ),
    outcome=Outcome("bilirubin", unit="mg/dL", low=0.05, high=60, transform="log"),
    task="patient",
    time=Clock("date", unit="d"),
    on_duplicate="first",
)
schema.to_toml(folder / "visits.toml")
table = Table.from_frame(frame, Schema.from_toml(folder / "visits.toml"), on_missing_outcome="drop")
print(table)

# %% [markdown]
# The table stores its findings. Its X passes the schema on to `fit`, with units, roles and the log
# scale.

# %%
train, test = table.split(test_fraction=0.3, random_state=0)
model = MetaRegressor(max_steps=50, random_state=0, verbose=False)
model.fit(train.X, train.y, groups=train.groups, time=train.time)
seen, later = test.support_query(shots=3)
patients = model.adapt(seen.X, seen.y, groups=seen.groups, time=seen.time)
predicted = patients.predict(later.X, groups=later.groups, time=later.time)
fold = np.exp(abs(np.log(predicted / later.y)))
print(f"half of the predictions are within a factor of {np.median(fold):.2f}")

# %% [markdown]
# A report is one page that says how well the model forecasts, and for whom, and lists the questions
# that only you can answer. Before that, the intervals are calibrated on patients that the model has
# not seen.

# %%
held_out, new = test.split(test_fraction=0.5, random_state=0)
calibrated = ConformalRegressor(model, shots=(0, 1, 2))
calibrated.calibrate(held_out.X, held_out.y, groups=held_out.groups, time=held_out.time)
given = {"groups": new.groups, "time": new.time, "findings": table.findings, "shots": (0, 1, 2)}
report = forecast_report(calibrated, new.X, new.y, **given, answers={"5a": "One trial's visits."})
report.save(folder / "report.html")
print("\n".join(report.sections[0].paragraphs))

# %% [markdown]
# An error message says what is wrong, where it is, and what to do. It never shows a patient's value
# or id.

# %%
for faulty in (
    frame.drop(columns="albumin"),
    frame.assign(albumin="normal"),
    frame.assign(date="unknown"),
):
    try:
        Table.from_frame(faulty, schema, on_missing_outcome="drop")
    except DataError as error:
        print(type(error).__name__, "|", error)

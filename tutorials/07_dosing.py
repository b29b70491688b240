# %% [markdown]
"""
Dosing: how much does this patient need?
========================================
Patients clear a drug at rates of their own, so one dose suits few of them. `DoseResponse` learns
over many patients how a response follows the dose, adapts to one more from a few (dose, response)
pairs, and names the dose that most probably brings the response into a target range. The patients
here are simulated, so that the recommendations can be held against the truth.
"""

# %%
import numpy as np
import pandas as pd

from ehrmeta import make_nof1, make_pk
from ehrmeta.treatment import DoseResponse, OneCompartment

patients = make_pk(300, random_state=7)
weight, clearance, dose, hours = patients.X.T
X = pd.DataFrame({"log_weight": np.log(weight), "log_clearance": np.log(clearance), "hours": hours})
print(X.assign(dose=dose, concentration=patients.y).head().round(2).to_string())

# %% [markdown]
# Concentrations multiply: twice the dose, twice the concentration. On the log scale that is a slope
# of 1, the same for all (`random_slope=False`); what differs is the level and the curve over the
# hours since the dose (`curves=`). Earlier doses still act a little, for some patients longer than
# for others (`own_carry_over=`): their half-life is estimated.

# %%
train = patients.groups < 200
model = DoseResponse(
    ["hours"],
    dose_scale="log",
    outcome_transform="log",
    random_slope=False,
    trend=False,
    own_carry_over=True,
)
model.fit(
    X[train],
    patients.y[train],
    treatment=dose[train],
    groups=patients.groups[train],
    time=patients.time[train],
)
print(f"half-life of earlier doses: {model.carry_over_:.1f} h")

# %% [markdown]
# A new patient, two concentrations. The band is about the concentration itself, before the next
# dose; `extrapolated` would mark doses that no training patient had.

# %%
first = np.flatnonzero(patients.groups == 200)
known = first[:2]
one = model.adapt(
    X.iloc[known], patients.y[known], treatment=dose[known], time=patients.time[known]
)
before_next = X.iloc[first[:1]].assign(hours=12.0)
print(one.dose_response(before_next, [200, 400, 800]).round(1).to_string(index=False))
best = one.recommend(before_next, target=patients.target, monotone="increasing", max_dose=1000)
print(best.round(2).to_string(index=False))
print(f"the truth at that dose: {patients.concentration(best['dose'][0])[200]:.1f} mg/L")

# %% [markdown]
# All new patients at once: the share that reaches the target with no concentration, and with two.

# %%
new = ~train
seen = new & np.tile(np.arange(5) < 2, 300)
ids = np.arange(200, 300)
query = X[new][::5].assign(hours=12.0)
grid = np.geomspace(110, 1180, 60)
two = model.adapt(
    X[seen],
    patients.y[seen],
    treatment=dose[seen],
    groups=patients.groups[seen],
    time=patients.time[seen],
)
blind = model.unadapted().recommend(query, target=patients.target, grid=grid)
adapted = two.recommend(query, target=patients.target, grid=grid, groups=ids)
for name, chosen in {"no concentration": blind, "two": adapted}.items():
    given = np.full(300, np.nan)
    given[ids] = chosen["dose"]
    share = patients.in_target(given)[ids].mean()
    print(f"{name}: {share:.0%} reach it, {chosen['probability'].mean():.0%} promised")

# %% [markdown]
# Where the drug's law is known, say so: `OneCompartment` learns clearance, volume and absorption of
# the population, and weighs all that a patient's may be by the concentrations seen.

# %%
few = patients.groups < 100
law = OneCompartment("hours", interval=12.0)
law.fit(
    X[few],
    patients.y[few],
    treatment=dose[few],
    groups=patients.groups[few],
    time=patients.time[few],
)
known_law = law.adapt(
    X[seen],
    patients.y[seen],
    treatment=dose[seen],
    groups=patients.groups[seen],
    time=patients.time[seen],
)
chosen = known_law.recommend(query, target=patients.target, grid=grid, groups=ids)
given = np.full(300, np.nan)
given[ids] = chosen["dose"]
share = patients.in_target(given)[ids].mean()
print(f"two, with the law: {share:.0%} reach it, {chosen['probability'].mean():.0%} promised")

# %% [markdown]
# Doses that follow the outcome mislead a comparison of rows: those who do badly get more. The model
# warns, and conditions on the whole history. Here a unit of dose lowers a symptom score by 4 on
# average, while higher doses go with *higher* scores.

# %%
titrated = make_nof1(120, titration=True, random_state=7)
learn = titrated.groups < 80
symptoms = DoseResponse()
symptoms.fit(
    titrated.X[learn, 3:],
    titrated.y[learn],
    treatment=titrated.treatment[learn],
    groups=titrated.groups[learn],
    time=titrated.time[learn],
)
naive = np.polyfit(titrated.treatment[learn], titrated.y[learn], 1)[0]
row = titrated.X[:1, 3:]
effect = symptoms.unadapted().effect(row, T0=0, T1=1, time=[55.0])[0]
print(f"slope over all rows {naive:+.1f}, effect of a dose held for long {effect:+.1f}")

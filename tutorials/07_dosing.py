# %% [markdown]
"""
Dosing: how much does this patient need?
========================================
Patients clear a drug at different rates, so no single dose suits all of them. `DoseResponse` learns
from many patients how the response depends on the dose. It adapts to a new patient from a few
(dose, response) pairs, and recommends the dose with the highest probability of a response in a
target range. The patients here are simulated, so that the recommendations can be compared with the
truth.
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
# Concentrations are proportional to the dose. On the log scale this is a slope of 1, the same for
# all patients (`random_slope=False`). Patients differ in their level, and in the curve over the
# hours since the dose (`curves=`). Earlier doses still contribute, in some patients longer than in
# others (`own_carry_over=`); their half-life is estimated.

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
# A new patient has two measured concentrations. The band is for the true concentration just before
# the next dose, without measurement error. `extrapolated` marks doses outside the training range.

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
# All new patients at once: the share whose concentration reaches the target range if the dose is
# chosen with no measured concentration, and with two.

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
    print(f"{name}: {share:.0%} in target, {chosen['probability'].mean():.0%} predicted")

# %% [markdown]
# If the drug's kinetics are known, use a kinetic model: `OneCompartment` learns the distribution of
# clearance, volume and absorption in the population, and computes their posterior given a new
# patient's concentrations.

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
print(f"two, kinetic model: {share:.0%} in target, {chosen['probability'].mean():.0%} predicted")

# %% [markdown]
# If doses are adjusted to the outcome (titration), comparing rows is misleading, because patients
# who do badly get more. The model warns, and conditions on the whole history. Here a unit of dose
# lowers a symptom score by 4 on average, although higher doses go with *higher* scores.

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
print(f"slope over all rows {naive:+.1f}, estimated effect of a constant dose {effect:+.1f}")

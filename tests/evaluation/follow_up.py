"""Sixty patients with competing events, from formulas, so that other programs can be given them."""

import numpy as np

from ehrmeta.data.labels import survival_array

_I = np.arange(60)
TIME = np.round(1 + 9 * ((_I * 0.6180339887498949) % 1) + _I / 1000, 6)
EVENT = np.array([0, 1, 2, 1, 0, 1, 1, 2, 0, 1])[_I % 10]
_SPREAD = 0.9 * ((_I * 0.7548776662466927) % 1) * (1.2 - TIME / 10).clip(0.05, 1)
RISK = np.round(0.05 + _SPREAD, 6).clip(0.01, 0.99)
TIMES = np.array([2.5, 5.0, 7.5])
RISK_BY = np.column_stack([0.4 * RISK, 0.7 * RISK, RISK])  # (row, time)
ANY, COMPETING = survival_array(EVENT > 0, TIME), survival_array(EVENT, TIME)

"""Concentrations of simulated patients, and a model of one compartment fitted to them."""

from functools import cache

import numpy as np

from ehrmeta.data import make_pk
from ehrmeta.treatment import OneCompartment


def features(p):
    return np.column_stack([np.log(p.X[:, 0] / 70), np.log(p.X[:, 1] / 80), p.X[:, 3]])


def keywords(p, rows):
    return {"treatment": p.X[rows, 2], "groups": p.groups[rows], "time": p.time[rows]}


@cache
def fitted():
    p = make_pk(60, 4, random_state=1)
    every = np.ones(len(p.y), bool)
    model = OneCompartment("x2", interval=12.0)
    return model.fit(features(p), p.y, **keywords(p, every)), p

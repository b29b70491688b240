"""The group of suites."""

from __future__ import annotations

import click

from ehrmeta.bench.commands.effects import treatment
from ehrmeta.bench.commands.engine import memory, reliability, speed
from ehrmeta.bench.commands.forecasts import conformal, pacoh, patients
from ehrmeta.bench.commands.learners import digits, sinusoid, table, tuning
from ehrmeta.bench.commands.risks import cohorts, landmark

__all__ = ["bench"]


@click.group()
def bench() -> None:
    """Measure this package beside its peers, on this machine.

    \b
        pip install 'ehrmeta[bench]'
        ehrmeta bench speed --json speed.json
    """


for suite in (
    *(speed, memory, reliability),
    *(sinusoid, digits, tuning, table),
    *(patients, pacoh, conformal),
    *(cohorts, landmark),
    treatment,
):
    bench.add_command(suite)

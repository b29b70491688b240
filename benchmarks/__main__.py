"""``python -m benchmarks SUITE``: this package beside its peers, from a checkout."""

from __future__ import annotations

import click
import torch

from benchmarks.commands.effects import treatment
from benchmarks.commands.engine import memory, reliability, speed
from benchmarks.commands.forecasts import conformal, pacoh, patients
from benchmarks.commands.learners import digits, sinusoid, table, tuning
from benchmarks.commands.risks import cohorts, landmark
from ehrmeta.cli.main import Commands

__all__ = ["main"]


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads."
)
def main(threads: int) -> None:
    """Measure this package beside its peers, on this machine.

    \b
        pip install -e '.[bench]'
        python -m benchmarks speed --json speed.json
    """
    torch.set_num_threads(threads)


for suite in (
    *(speed, memory, reliability),
    *(sinusoid, digits, tuning, table),
    *(patients, pacoh, conformal),
    *(cohorts, landmark),
    treatment,
):
    main.add_command(suite)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")

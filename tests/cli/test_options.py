import subprocess
import sys

import click
import pytest

from ehrmeta.cli.options import Choice, ends
from ehrmeta.cli.work import CHOICES

HEAVY = ("numpy", "pandas", "sklearn", "torch")
REPORT = "print('heavy:', *sorted({*sys.modules} & {*sys.argv.pop().split(',')}))"
RUN = f"""
import atexit, sys
atexit.register(lambda: {REPORT})
from ehrmeta.cli.main import main
main(sys.argv[1:-1], prog_name="ehrmeta")
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--help"], "Learn from many patients"),
        (["--version"], "version"),
        (["nothing"], "No such command 'nothing'"),
        (["fit", "visits.csv", "--target-column", "hdl"], "No such option '--target-column'"),
        (["adapt", "hdl.ehrmeta"], "Missing argument 'VISITS'"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--shots", "1,1"], "repeats a number"),
        (["report", "hdl.ehrmeta", "test.csv"], "Missing option '--out'"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_help_and_wrong_options_need_no_library(arguments, message):
    command = [sys.executable, "-c", RUN, *arguments, ",".join(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert message in (done.stdout + done.stderr).replace("option: ", "option '")
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]


@pytest.mark.parametrize("option", CHOICES)
def test_a_choice_takes_its_values_and_no_other(option):
    kind = Choice(option)
    for value in CHOICES[option]:
        assert kind.convert(value, None, None) == value
    with pytest.raises(click.BadParameter, match="is not one of"):
        kind.convert("nothing", None, None)


def test_the_ends_of_a_range_may_be_open():
    assert [ends(text) for text in ("1:2", ":2.5", "1:")] == [(1, 2), (None, 2.5), (1, None)]

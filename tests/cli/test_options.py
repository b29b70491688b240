import subprocess
import sys
from typing import get_args

import pytest

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.cli.main import main
from ehrmeta.cli.options import CHOICES, ends
from ehrmeta.data.censored import Censored
from ehrmeta.data.clock import SECONDS
from ehrmeta.data.schema import OnDuplicate, TaskKind, Transform
from ehrmeta.estimators.adapted import NewGroups
from ehrmeta.nn.likelihoods import LIKELIHOODS
from ehrmeta.tuning.objective import MEASURES
from tests.cli.commands import FIT, run

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
        (["fit", "visits.csv", "--algorithm", "mamml"], "'mamml' is not one of"),
        *(([command, "--help"], "--help") for command in sorted(main.commands)),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_help_and_wrong_options_need_no_library(arguments, message):
    command = [sys.executable, "-c", RUN, *arguments, ",".join(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert message in (done.stdout + done.stderr).replace("option: ", "option '")
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]


def test_choices_are_those_of_the_package():
    values = {
        "algorithm": ALGORITHMS,
        "censored": get_args(Censored),
        "likelihood": LIKELIHOODS,
        "new-groups": get_args(NewGroups),
        "on-duplicate": get_args(OnDuplicate),
        "scoring": [name for name in MEASURES if name != "log_loss"],
        "task-kind": get_args(TaskKind),
        "time-unit": SECONDS,
        "transform": ("auto", *get_args(Transform), "none"),
    }
    assert {name: tuple(kinds) for name, kinds in values.items()} == CHOICES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "visits.csv"], "pass --task and --target"),
        (["fit", "pbcseq", "--task", "patient"], "whose card names its columns"),
        (["fit", "pbcseq", "--time-unit", "d", "--drop-missing-target"], "omit --time-unit"),
        (["predict", "new.ehrmeta", "later.csv", "--out", "x.txt"], "name a .csv or .parquet file"),
        (["adapt", "hdl.ehrmeta", "first.csv", "--out", "x.csv"], "is named like a table"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--shots", "1,1"], "repeats a number"),
        (["fit", "visits.csv", *FIT, "--unit", "mg/dL"], "not of the form COLUMN=VALUE"),
        (["fit", "visits.csv", *FIT, "--range", "hdl=high"], "write COLUMN=LOW:HIGH"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--shots", "1,x"], "list of whole numbers"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--shots", "1,-1"], "one below 0"),
        (["predict", "new.ehrmeta", "later.csv", "--confidence-level", "1"], "not in the range"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--baselines"], "pass --train or --hold-out"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_wrong_usage_is_refused_before_any_work(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    out = ["--out", "unused.ehrmeta"] if arguments[0] == "fit" else []
    assert message in run(*arguments, *out, code=2).output
    assert not (folder / "unused.ehrmeta").exists()


def test_the_ends_of_a_range_may_be_open():
    assert [ends(text) for text in ("1:2", ":2.5", "1:")] == [(1, 2), (None, 2.5), (1, None)]

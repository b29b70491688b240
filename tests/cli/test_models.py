import pytest

from tests.cli.commands import FIT, run


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

"""``ehrmeta privacy audit`` and ``ehrmeta audit verify`` print what the functions find."""

import pytest

from ehrmeta import MetaRegressor, report
from ehrmeta.persistence import append_audit_record
from tests.cli.commands import failure, run

KEY = "k" * 32


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    for n in range(3):
        append_audit_record(path, {"n_tasks": n}, {"output": "x"}, KEY.encode())
    (tmp_path / "key").write_text(KEY)
    return path


def test_an_intact_log_is_verified(log, monkeypatch):
    done = run("audit", "verify", log, "--key-file", log.parent / "key")
    assert done.output.startswith("3 lines are unaltered; the last has hmac ")
    monkeypatch.setenv("EHRMETA_AUDIT_KEY", KEY)
    append_audit_record(log, {"n_tasks": 3}, {"output": "x"}, None)
    assert "1 lines were written without a key" in run("audit", "verify", log).output


def test_a_changed_log_is_an_error(log, monkeypatch):
    monkeypatch.delenv("EHRMETA_AUDIT_KEY", raising=False)
    log.write_text(log.read_text().replace('"n_tasks": 1', '"n_tasks": 2'))
    key = ("--key-file", log.parent / "key")
    assert "changed at or before line(s) 2, 3, of 3" in failure("audit", "verify", log, *key)
    assert "pass --key-file" in run("audit", "verify", log, code=2).output
    log.write_text('{"n_tasks": 2}\n')
    assert "without a line with a key, of 1" in failure("audit", "verify", log, *key)


def test_the_figures_of_a_membership_audit_are_those_of_the_function(folder):
    paths = folder / "hdl.ehrmeta", folder / "visits.csv", folder / "visits.csv"
    done = run("privacy", "audit", *paths, "--shots", "1")
    assert "30 members, 30 others" in done.output
    figures = {line[:32].strip(): line[32:] for line in done.output.splitlines()[1:]}
    assert figures["loss after 1 values"].startswith("0.50 (")  # the same patients
    assert list(figures)[-1] == "difference"
    assert MetaRegressor.load(paths[0]).model_.name == "MetaRegressor"
    assert report.membership_audit.__module__ == "ehrmeta.report.membership"

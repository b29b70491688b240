import time

from ehrmeta.cli.work import running


def test_a_long_stage_says_that_it_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(running, "_EVERY", 0.02)
    with running.stage("training"):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert set(lines) == {"training: 0 s"}


def test_a_short_stage_says_nothing(capsys):
    with running.stage("training"):
        pass
    assert capsys.readouterr().err == ""

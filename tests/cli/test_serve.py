"""The command that serves a model: its options reach the server."""

import pytest

from ehrmeta.cli import serve as command
from tests.cli.commands import failure, run


def test_options_become_settings(folder, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr(command, "serve", lambda model, settings, started: served.append(settings))
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    run(
        *("serve", folder / "hdl.ehrmeta", "--host", "0.0.0.0", "--token-file", token),
        *("--port", "9000", "--max-bytes", "100", "--max-rows", "5"),
    )
    (settings,) = served
    assert (settings.host, settings.port, settings.token) == ("0.0.0.0", 9000, "0123456789abcdef")
    assert (settings.limits.n_bytes, settings.limits.n_rows) == (100, 5)


def test_a_server_open_to_others_needs_a_token(folder):
    line = failure("serve", folder / "hdl.ehrmeta", "--host", "0.0.0.0")
    assert line.startswith("Error: the server would be open to other machines")
    line = failure("serve", folder / "none.ehrmeta", "--token-file", folder / "none")
    assert "No such file" in line


@pytest.mark.parametrize("option", ["--max-rows", "--max-bytes"])
def test_limits_are_positive(folder, option):
    done = run("serve", folder / "hdl.ehrmeta", option, "0", code=2)
    assert option in done.stderr

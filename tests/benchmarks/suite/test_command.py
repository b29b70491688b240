"""The suites on the command line, and the command that a file of records names."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.suite.command import command_line


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("sinusoid", "sinusoid"),
        ("sinusoid --quick --json x.json", "sinusoid --quick"),
        (
            "digits --method MatchingNet --method 'MAML, 5 steps' --workers 2 --seed 3",
            "digits --seed 3 --workers 2 --method MatchingNet --method 'MAML, 5 steps'",
        ),
        ("pacoh --data /home/me/icu --cache runs", "pacoh --data DIR --cache FOLDER"),
    ],
)
def test_a_file_of_records_names_all_options_but_no_folder(given, named):
    name, *arguments = shlex.split(given)
    context = main.commands[name].make_context(name, arguments)
    assert command_line(context) == f"python -m benchmarks {named}"


def _run(*arguments: str):
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("suite", ["speed", "memory", "sinusoid", "digits", "patients"])
def test_a_file_that_cannot_be_written_is_refused_before_measuring(suite: str, tmp_path) -> None:
    done = _run(suite, "--quick", "--json", str(tmp_path / "missing" / "numbers.json"))
    assert done.exit_code == 2
    assert "there is no folder" in done.output

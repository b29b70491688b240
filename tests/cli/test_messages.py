"""Messages in words of the command line, and signs of life."""

import ast
import time
from pathlib import Path

import pytest

from ehrmeta.cli import messages
from ehrmeta.cli.messages import COMMAND_WORDS, in_command_words, reworded
from ehrmeta.data import Finding
from ehrmeta.errors import BundleError, DataWarning, Remedy

PACKAGE = Path(__file__).parents[2] / "ehrmeta"


def remedies() -> dict[str, set[str]]:
    """Kind and values of every remedy that the package names."""
    kinds: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Remedy":
                kind, _, *values = node.args
                names = {key.value for value in values for key in value.keys}
                kinds[kind.value] = kinds.get(kind.value, set()) | names
    return kinds


def test_every_remedy_has_words_on_the_command_line_and_no_other():
    assert set(remedies()) == set(COMMAND_WORDS)


@pytest.mark.parametrize("kind", sorted(COMMAND_WORDS))
def test_the_words_of_a_remedy_name_no_python(kind):
    remedy = Remedy(kind, "", dict.fromkeys(remedies()[kind], "hdl"))
    text = in_command_words(remedy)
    assert not {"(", ")", "_", "'"} & set(text.replace("student_t", ""))
    assert "hdl" in text or not remedy.values


def test_a_message_is_one_line_with_its_remedies_reworded():
    remedy = Remedy("pass-a-model", "Open it with Adapted.load.")
    error = BundleError("It holds\nadapted patients.", remedy)
    assert in_command_words(error) == "It holds adapted patients. Pass a file from `fit`."
    finding = Finding("rows dropped", "hdl", 2, Remedy("keep-small-tasks", "Pass min_rows=1."))
    assert in_command_words(DataWarning(finding, finding)) == " ".join(
        2 * ["column 'hdl': 2 rows dropped."]
    )
    assert reworded(finding).remedy == ""


def test_a_long_stage_prints_progress(monkeypatch, capsys):
    monkeypatch.setattr(messages, "_EVERY", 0.02)
    with messages.stage("training"):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert set(lines) == {"training: 0 s"}


def test_a_short_stage_prints_nothing(capsys):
    with messages.stage("training"):
        pass
    assert capsys.readouterr().err == ""

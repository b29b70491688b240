"""Messages in the words of the command line, and how its tables are read."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ehrmeta.cli.models import groups_of
from ehrmeta.cli.tables import COMMAND_WORDS, in_command_words, reworded
from ehrmeta.data import Finding
from ehrmeta.errors import BundleError, DataWarning, Remedy

PACKAGE = Path(__file__).parents[2] / "ehrmeta"


def remedies() -> dict[str, set[str]]:
    """Kind and values of every remedy that the package names."""
    kinds: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Remedy":
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
    assert in_command_words(error) == "It holds adapted patients. Pass a file of `fit`."
    finding = Finding("rows left out", "hdl", 2, Remedy("keep-small-tasks", "Pass min_rows=1."))
    assert in_command_words(DataWarning(finding, finding)) == " ".join(
        2 * ["column 'hdl': 2 rows left out."]
    )
    assert reworded(finding).remedy == ""


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_numbered_ids_match_digit_by_digit(dtype):
    labels = np.array([2**53, 2**53 + 2, 7], dtype)
    patients = SimpleNamespace(labels_=labels)
    asked = pd.Series(["9007199254740993", "9007199254740994", "7.0", "7.3"], name="id")
    found = groups_of(asked, patients)
    assert found.dtype == dtype
    assert pd.Index(labels).get_indexer(found).tolist() == [-1, 1, 2, -1]

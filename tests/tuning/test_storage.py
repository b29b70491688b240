import json
from pathlib import Path

import pytest
from optuna.storages import JournalStorage

from ehrmeta.errors import StudyError
from ehrmeta.tuning.storage import Journal, cut_broken_end
from tests.tuning.test_search import drawn, search

WHOLE = b'{"op_code":0}\n{"op_code":1}\n'


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"", b""),
        (WHOLE, WHOLE),
        (WHOLE + b'{"op_co', WHOLE),
        (WHOLE + b'{"op_code":2}', WHOLE),
        (b'{"op', b""),
        (WHOLE + b"x" * 200_000, WHOLE),
        (b"y" * 200_000, b""),
        (WHOLE + json.dumps({"a": "z" * 200_000}).encode() + b"\n{", None),
    ],
)
def test_a_broken_end_is_cut_off_and_nothing_else(
    tmp_path: Path, text: bytes, kept: bytes | None
) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(text)
    cut_broken_end(path)
    assert path.read_bytes() == (text[:-1] if kept is None else kept)


def test_a_study_goes_on_after_a_writer_died_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    kept = {"storage": path, "study_name": "a"}
    search(n_trials=2, **kept)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"worker_id":"dead","trial_id":0,"param_na')
    assert drawn(search(n_trials=4, **kept).study) == drawn(search(n_trials=4).study)


def test_a_last_line_of_garbage_is_cut_off_when_the_journal_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    kept = {"storage": path, "study_name": "a"}
    search(n_trials=2, **kept)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x00\x00\x00\n")
    Journal(path)
    assert path.read_bytes() == whole


def test_an_open_journal_repairs_what_another_writer_left(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    storage = JournalStorage(Journal(path))
    study_id = storage.create_new_study([1], "a")  # type: ignore[list-item]
    with path.open("ab") as file:
        file.write(b'{"op_code":2,"wor')
    storage.set_study_user_attr(study_id, "note", "kept")
    assert JournalStorage(Journal(path)).get_study_user_attrs(0) == {"note": "kept"}


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(b"garbage\n" + WHOLE)
    with pytest.raises(StudyError, match="line 1 of the journal"):
        search(storage=path, study_name="a")

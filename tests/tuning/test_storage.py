import json
from pathlib import Path

import pytest
from optuna.storages import JournalStorage

from ehrmeta.errors import StudyError
from ehrmeta.tuning.storage import FileLocks, Journal, cut_broken_end, open_storage, parsed_storage
from tests.tuning.small import drawn, search

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
    stored = {"storage": path, "study_name": "a"}
    search(n_trials=2, **stored)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"worker_id":"dead","trial_id":0,"param_na')
    assert drawn(search(n_trials=4, **stored).study) == drawn(search(n_trials=4).study)


def test_a_last_line_of_garbage_is_cut_off_when_the_journal_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    stored = {"storage": path, "study_name": "a"}
    search(n_trials=2, **stored)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x00\x00\x00\n")
    Journal(path)
    assert path.read_bytes() == whole


def test_an_open_journal_repairs_a_partial_line_of_another_writer(tmp_path: Path) -> None:
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


def test_a_lock_has_one_holder_and_is_free_again(tmp_path: Path) -> None:
    one, other = FileLocks(tmp_path, "a"), FileLocks(tmp_path, "a")
    one.acquire(3)
    assert not other.acquire(3, wait=False)
    assert other.acquire(4, wait=False)
    one.release(3)
    assert other.acquire(3, wait=False)
    other.close()
    assert one.acquire(3, wait=False)
    assert one.acquire(4, wait=False)


def test_studies_of_one_storage_have_locks_of_their_own(tmp_path: Path) -> None:
    one, other = FileLocks(tmp_path, "a"), FileLocks(tmp_path, "b")
    one.acquire(1)
    assert other.acquire(1, wait=False)


def test_the_turn_keeps_its_file_and_a_trial_does_not(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path, "a")
    for number in (0, 5):
        locks.acquire(number)
    locks.close()
    assert [path.name.endswith("-0.lock") for path in tmp_path.iterdir()] == [True]


def test_a_study_in_memory_loses_no_worker() -> None:
    _, locks = open_storage(None, "a")
    locks.acquire(1)
    assert not locks.acquire(1, wait=False)


@pytest.mark.parametrize(
    ("storage", "kind", "database"),
    [
        ("a.db", "sqlite", "a.db"),
        ("a.journal", "journal", "a.journal"),
        ("a.log", "journal", "a.log"),
        ("sqlite:///b/a.db", "sqlite", "b/a.db"),
        ("postgresql://me:secret@host/base", "postgresql", "base"),
    ],
)
def test_a_storage_is_a_url_of_one_of_three_kinds(storage: str, kind: str, database: str) -> None:
    url = parsed_storage(storage)
    assert (url.get_backend_name(), url.database) == (kind, database)


def test_a_password_stands_in_its_own_place_only() -> None:
    with pytest.raises(StudyError, match="write the password as"):
        parsed_storage("postgresql://host/base?password=secret")


def test_a_file_that_is_not_there_is_not_made_to_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no study file"):
        open_storage(tmp_path / "a.db", "a", create=False)
    assert not (tmp_path / "a.db").exists()

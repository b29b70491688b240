"""An audit log tells nothing without its key, and shows every change with it."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import itertools
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from ehrmeta.errors import DataError
from ehrmeta.persistence import append_audit_record, read_key, verify_audit_log
from ehrmeta.persistence.audit import KEY_VARIABLE

KEY = b"k" * 32


def _write(path, n, key=KEY):
    for place in range(n):
        append_audit_record(path, {"n_tasks": place}, {"output": f"{place:064x}"}, key)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "audit.jsonl"
    _write(path, 4)
    return path


def test_an_untouched_log_is_intact_and_only_its_owner_reads_it(log):
    found = verify_audit_log(log, KEY)
    assert (found.n_lines, found.n_without_key, found.wrong) == (4, 0, ())
    assert found.last == json.loads(log.read_text().splitlines()[-1])["hmac"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda lines: [line.replace(b'"n_tasks": 1', b'"n_tasks": 7') for line in lines], (2, 3)),
        (lambda lines: [*lines[:1], *lines[2:]], (2,)),
        (lambda lines: lines[1:], (1,)),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], (2, 3, 4)),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], (3,)),
        (lambda lines: [*lines[:2], b'{"n_tasks": 9}', *lines[2:]], (4,)),
        (lambda lines: [*lines[:3], lines[3][:40]], (4,)),
        (lambda lines: [*lines, b"[1]"], (5,)),
    ],
    ids=["changed", "removed", "beheaded", "moved", "repeated", "inserted", "torn", "no record"],
)  # fmt: skip
def test_every_change_is_found(log, change, wrong):
    log.write_bytes(b"\n".join(change(log.read_bytes().splitlines())) + b"\n")
    assert verify_audit_log(log, KEY).wrong == wrong


def test_another_key_finds_every_line_wrong(log):
    assert verify_audit_log(log, b"x" * 32).wrong == (1, 2, 3, 4)


def test_a_cut_off_end_shows_in_the_last_hmac(log):
    before = verify_audit_log(log, KEY)
    log.write_text("\n".join(log.read_text().splitlines()[:3]) + "\n")
    after = verify_audit_log(log, KEY)
    assert after.wrong == ()
    assert after.last != before.last


def test_a_line_after_a_torn_one_is_its_own(log):
    log.write_bytes(log.read_bytes()[:-30])
    _write(log, 1)
    found = verify_audit_log(log, KEY)
    assert (found.n_lines, found.wrong) == (5, (4,))


def test_without_a_key_there_is_no_digest_and_a_keyed_line_binds_what_came_before(tmp_path):
    path = tmp_path / "audit.jsonl"
    _write(path, 2, key=None)
    assert [set(json.loads(line)) for line in path.read_text().splitlines()] == [
        {"time", "n_tasks"}
    ] * 2
    _write(path, 1)
    found = verify_audit_log(path, KEY)
    assert (found.n_lines, found.n_without_key, found.wrong) == (3, 2, ())
    path.write_text(path.read_text().replace('"n_tasks": 1', '"n_tasks": 5'))
    assert verify_audit_log(path, KEY).wrong == (3,)


def test_a_digest_of_a_single_value_is_not_found_by_trying_all_values(tmp_path):
    """Albumin has 600 values at most; everything else about the patient is known."""
    path = tmp_path / "audit.jsonl"
    values = [f"{place / 100:.2f}" for place in range(600)]
    digests = {value: hashlib.sha256(value.encode()).hexdigest() for value in values}
    append_audit_record(path, {"n_tasks": 1}, {"output": digests["3.42"]}, KEY)
    append_audit_record(path, {"n_tasks": 1}, {"output": digests["3.42"]}, None)
    text = path.read_text()
    guesses = (b"", b"ehrmeta", KEY_VARIABLE.encode(), b"0" * 32)
    for value, guess in itertools.product(values, guesses):
        content = b"output\0" + digests[value].encode()
        assert digests[value] not in text
        assert hmac.new(guess, content, hashlib.sha256).hexdigest() not in text
    content = b"output\0" + digests["3.42"].encode()
    assert hmac.new(KEY, content, hashlib.sha256).hexdigest() in text  # what a key holder can check


def test_writers_wait_for_each_other(tmp_path):
    path = tmp_path / "audit.jsonl"
    with ThreadPoolExecutor(3) as pool:  # a lock belongs to an open file, not to a process
        for done in [pool.submit(_write, path, 20) for _ in range(3)]:
            done.result()
    assert verify_audit_log(path, KEY).n_lines == 60
    assert verify_audit_log(path, KEY).wrong == ()


def test_the_key_is_in_a_file_or_a_variable_and_long(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key() is None
    monkeypatch.setenv(KEY_VARIABLE, "v" * 20)
    assert read_key() == b"v" * 20
    file = tmp_path / "key"
    file.write_text("f" * 64 + "\n")
    assert read_key(file) == b"f" * 64
    file.write_text("short")
    with pytest.raises(DataError, match="has 5 bytes, fewer than 16"):
        read_key(file)
    with pytest.raises(DataError, match="cannot read the key"):
        read_key(tmp_path / "none")
    with pytest.raises(DataError, match="cannot read the audit log"):
        verify_audit_log(tmp_path / "none", KEY)


def test_a_key_of_16_bytes_is_long_enough(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"k" * 16 + b" \n")
    assert read_key(file) == b"k" * 16
    file.write_bytes(b"k" * 15)
    with pytest.raises(DataError, match="has 15 bytes, fewer than 16"):
        read_key(file)


def test_a_long_log_is_chained_by_its_last_line_and_reread_from_its_end(tmp_path):
    path = tmp_path / "audit.jsonl"
    for place in range(3):
        append_audit_record(path, {"n": place, "text": "x" * 40_000}, {}, KEY)
    found = verify_audit_log(path, KEY)
    assert (found.n_lines, found.wrong) == (3, ())
    assert [line["n"] for line in map(json.loads, path.read_text().splitlines())] == [0, 1, 2]
    assert path.read_bytes().endswith(b"}\n")


def test_a_log_in_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(DataError, match="the audit record cannot be written to"):
        append_audit_record(tmp_path / "none" / "audit.jsonl", {}, {}, KEY)


def test_other_groups_and_users_cannot_read_a_new_log_and_results_cannot_be_changed(tmp_path):
    path = tmp_path / "audit.jsonl"
    before = os.umask(0)
    try:
        _write(path, 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(dataclasses.FrozenInstanceError):
        verify_audit_log(path, KEY).n_lines = 0


def test_a_line_without_its_link_is_wrong(log):
    lines = log.read_bytes().splitlines()
    first = json.loads(lines[0])
    del first["previous"], first["hmac"]
    content = json.dumps(first, sort_keys=True).encode()
    first["hmac"] = hmac.new(KEY, b"line\0" + content, hashlib.sha256).hexdigest()
    log.write_bytes(b"\n".join([json.dumps(first).encode(), *lines[1:]]) + b"\n")
    assert verify_audit_log(log, KEY).wrong == (1, 2)

"""Files are written whole or not at all, and what killed writers left is removed."""

import os
import signal
import stat
import subprocess
import sys

from ehrmeta.whole_file import replace_file

KILLED = """
import os, signal, sys
from pathlib import Path
from ehrmeta.whole_file import replace_file
replace_file(sys.argv[1], lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "model.ehrmeta"
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    of_a_living_writer = left.with_name(left.name.replace(str(_pid(left)), str(os.getppid())))
    of_another_machine = left.with_name("." + "0" * 8 + left.name[9:])
    for other in (of_a_living_writer, of_another_machine):
        other.touch()
    replace_file(path, lambda temporary: temporary.write_text("whole"))
    assert set(tmp_path.iterdir()) == {path, of_a_living_writer, of_another_machine}
    assert path.read_text() == "whole"


def _pid(path):
    return int(path.name.split("-")[1])


def test_permissions_hold_from_the_first_byte(tmp_path):
    path, seen = tmp_path / "patients.csv", []

    def write(temporary):
        seen.append(stat.S_IMODE(temporary.stat().st_mode))
        temporary.write_text("p1")

    path.touch(0o644)
    replace_file(path, write, 0o640)
    replace_file(path, write)
    assert [*seen, stat.S_IMODE(path.stat().st_mode)] == [0o640, 0o640, 0o640]

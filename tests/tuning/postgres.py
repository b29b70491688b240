"""A PostgreSQL server of one's own for a test."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a fresh server; skips the test where there can be none."""
    pytest.importorskip("psycopg", reason="pip install 'ehrmeta[postgresql]'")
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    if shutil.which("initdb", path=path) is None or shutil.which("pg_ctl", path=path) is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    owner = _owner()
    home = Path(tempfile.mkdtemp(prefix="ehrmeta-postgres-"))
    data, port = home / "data", _free_port()
    if owner is not None:
        shutil.chown(home, owner)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(shutil.which(program, path=path)), "-D", str(data), *arguments],
            user=owner,
            cwd=home,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
    run("initdb", "-A", "trust", "-U", "tester")
    run("pg_ctl", "-w", "-o", f"{options} -c fsync=off", "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(home)


def _owner() -> str | None:
    """The server refuses to be root's: the user that Debian's package makes for it."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

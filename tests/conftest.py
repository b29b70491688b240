"""What every test runs under: one thread, no network, no window, repeatable examples."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"
torch.set_num_threads(1)
# A shared machine is slow at times; a failure must come back on the next run.
settings.register_profile("ehrmeta", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ehrmeta")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Let no test connect to anything outside this machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError("a test tried to use the network")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield

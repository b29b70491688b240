from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main


def _run(*arguments: str):
    return CliRunner().invoke(main, arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:higher", "ignore::UserWarning:higher")
def test_the_quick_suite_runs_and_goes_on_from_its_cache(tmp_path: Path) -> None:
    options = "--quick", "--cache", str(tmp_path / "cells"), "--json", str(tmp_path / "speed.json")
    done = _run("speed", *options)
    assert done.exit_code == 0, done.output
    for text in ("ehrmeta, low rank", "GFLOP/s useful", "time / Ridge", "patients/s", "share"):
        assert text in done.output
    records = json.loads((tmp_path / "speed.json").read_text())["records"]
    assert {r["metric"] for r in records} >= {"ms", "ratio", "gflops", "padding", "batch_share"}
    again = _run("speed", *options)
    assert again.output.partition("\n")[2] == done.output.partition("\n")[2]


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    done = _run("speed", "--method", "torch.func")
    assert done.exit_code == 1
    assert "unknown method 'torch.func'. Did you mean 'torch.func vmap'" in done.output


def test_an_unknown_device_is_named() -> None:
    done = _run("speed", "--quick", "--device", "abacus")
    assert done.exit_code == 1
    assert "device must be 'auto', 'cpu' or 'cuda', got 'abacus'" in done.output

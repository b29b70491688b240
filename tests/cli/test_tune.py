from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.tuning.search import DEFAULT_STORAGE
from tests.cli.commands import run


def test_the_help_shows_the_default_storage_and_all_algorithms():
    text = "".join(run("tune", "--help").output.split())
    assert f"[default:{DEFAULT_STORAGE}]" in text
    assert f"[{'|'.join(ALGORITHMS)}]" in text

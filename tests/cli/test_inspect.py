import pytest

from tests.cli.commands import FIT, run


@pytest.mark.parametrize("given", [FIT[:2], FIT[4:6]], ids=["task", "target"])
def test_a_schema_names_the_columns_alone(folder, given):
    done = run("check", folder / "visits.csv", "--schema", "visits.toml", *given, code=2)
    assert "--schema names the columns: leave out --t" in done.output

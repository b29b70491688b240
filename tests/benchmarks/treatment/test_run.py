from click.testing import CliRunner

from benchmarks.__main__ import main


def test_the_command_writes_its_records(tmp_path):
    file = tmp_path / "treatment.json"
    arguments = ["treatment", "--quick", "--part", "sites", "--method", "T ridge"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "Bayes rule" in result.output
    assert file.exists()

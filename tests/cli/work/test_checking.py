from tests.cli.commands import run


def test_check_lists_findings_and_saves_a_schema_that_finds_them_again(tmp_path):
    table, schema = tmp_path / "visits.csv", tmp_path / "visits.toml"
    table.write_text("mrn,day,glucose,hdl\n1,0,5.1,50\n1,3,5.5,50\n2,0,4.9,44\n2,0,6.1,\n")
    roles = ["--task", "mrn", "--time", "day", "--target", "hdl"]
    for arguments in ([*roles, "--write-schema", schema], ["--schema", schema]):
        output = run("check", table, *arguments, code=1).output
        assert "repeating a (mrn, day) pair" in output
        assert "1 missing outcome (first: line 5)." in output


def test_check_of_a_clean_table_succeeds(tmp_path):
    table = tmp_path / "visits.csv"
    table.write_text("mrn,day,age,hdl\n1,0,40,50\n1,3,40,51\n2,0,61,44\n")
    roles = ["--task", "mrn", "--time", "day", "--target", "hdl", "--strict"]
    assert "nothing found" in run("check", table, *roles).output

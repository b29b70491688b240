"""Commands run in this process, as a shell would run them."""

from click.testing import CliRunner

from ehrmeta.cli.main import main

ROLES = ["--task", "patient", "--time", "date", "--target", "hdl", "--measured", "crp"]
FIT = [*ROLES, "--max-steps", "20"]


def run(*arguments, code=0):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert code is None or done.exit_code == code, done.output
    return done


def failure(*arguments):
    """The error of a command that must fail in one line."""
    done = run(*arguments, code=1)
    assert "Traceback" not in done.output
    (line,) = done.stderr.splitlines()
    return line

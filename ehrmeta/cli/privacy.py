"""Privacy: membership audits of a model, and verification of audit logs."""

from typing import Any

import click

from ehrmeta.cli import tables
from ehrmeta.cli.evaluate import uncalibrated
from ehrmeta.cli.messages import stage
from ehrmeta.cli.predict import load_model
from ehrmeta.errors import DataError
from ehrmeta.persistence import read_key, verify_audit_log
from ehrmeta.report import membership_audit


def audit_membership(
    model: str,
    members: str,
    non_members: str,
    shots: tuple[int, ...] | None,
    schema_file: str | None,
    **form: Any,
) -> None:
    """Print how well attacks distinguish the members of a model from other patients."""
    loaded = load_model(model)
    fitted = uncalibrated(loaded)
    reading = {
        "schema": tables.schema_of(fitted.model_, model, schema_file),
        "classes": getattr(fitted, "classes_", None),
        "drop_missing_target": True,
        **form,
    }
    inside, outside = (tables.read_table(source, **reading) for source in (members, non_members))
    with stage("attacking"):
        audit = membership_audit(loaded, inside, outside, shots=shots, confidence_level=0.95)
    click.echo(f"{inside.n_tasks:,} members, {outside.n_tasks:,} others; 95 % intervals")
    titles = {"auc": "AUC", "tpr_1": "TPR at 1 % FPR", "tpr_5": "TPR at 5 % FPR"}
    click.echo(f"{'attack':<32}" + "".join(f"{title:<22}" for title in titles.values()).rstrip())
    for _, row in audit.iterrows():
        cells = (f"{row[n]:.2f} ({row[f'{n}_low']:.2f} to {row[f'{n}_high']:.2f})" for n in titles)
        click.echo(f"{row['attack']:<32}" + "".join(f"{cell:<22}" for cell in cells).rstrip())


def verify_log(log: str, key_file: str | None) -> None:
    """Print whether an audit log is unaltered; exit with status 1 if it is not."""
    key = read_key(key_file)
    if key is None:
        raise click.UsageError("pass --key-file, or set EHRMETA_AUDIT_KEY.")
    found = verify_audit_log(log, key)
    n_keyed = found.n_lines - found.n_without_key
    if found.wrong or not n_keyed:
        lines = ", ".join(map(str, found.wrong[:10])) + (", ..." if found.wrong[10:] else "")
        what = (
            f"changed at or before line(s) {lines}" if found.wrong else "without a line with a key"
        )
        raise DataError(
            f"'{log}' is {what}, of {found.n_lines:,}. Use the key it was written with; if this is "
            "the key, somebody altered the log."
        )
    click.echo(f"{n_keyed:,} lines are unaltered; the last has hmac {found.last}")
    if found.n_without_key:
        click.echo(
            f"{found.n_without_key:,} lines were written without a key and cannot be verified"
        )

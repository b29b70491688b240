"""Scoring of a folder of parts, with a line of progress after each."""

from pathlib import Path

import click

from ehrmeta.cli.messages import printable
from ehrmeta.serving.folder import score_folder


def score_parts(
    model: str, parts: str, out: str, workers: int, confidence_level: float, mode: int
) -> None:
    """Score the parts and print how many were scored, skipped and failed."""
    result = score_folder(
        model,
        parts,
        Path(out),
        workers=workers,
        confidence_level=confidence_level,
        mode=mode,
        progress=lambda line: click.echo(printable(line), err=True),
    )
    counts = f"scored {len(result.scored):,} parts ({result.n_predictions:,} predictions)"
    if result.skipped:
        counts += f", {len(result.skipped):,} were finished before"
    click.echo(f"{counts}, saved {out}")
    if result.failed:
        listed = "; ".join(f"{name}: {error}" for name, error in sorted(result.failed.items()))
        raise click.ClickException(
            printable(f"{len(result.failed):,} parts failed. {listed} Correct them and run again.")
        )

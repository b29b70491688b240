"""A server of one model, until it is ended."""

import click

from ehrmeta.serving.requests import Limits
from ehrmeta.serving.server import ServerSettings, read_token, serve


def serve_model(
    model: str,
    host: str,
    port: int,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    max_bytes: int,
    max_rows: int,
) -> None:
    """Serve a model and say where."""
    settings = ServerSettings(
        host,
        port,
        None if token_file is None else read_token(token_file),
        tls_cert,
        tls_key,
        Limits(max_bytes, max_rows),
    )
    serve(model, settings, started=lambda line: click.echo(line, err=True))

"""Risks and doses at new hospitals."""

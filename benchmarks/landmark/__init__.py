"""Risks of events after a landmark."""

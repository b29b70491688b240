"""Faults put in on purpose."""

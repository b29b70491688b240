"""Shared parts of the suites: cells and their cache, commands, records, scores, timing."""

"""The skeleton of all suites: cells and their cache, commands, records, scores, timing."""

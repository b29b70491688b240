"""The suites on the command line."""

"""Displays: each holds the data of one figure and draws it."""

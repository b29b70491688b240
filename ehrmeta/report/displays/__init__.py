"""Displays: data and figure of one picture each."""

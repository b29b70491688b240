"""The PACOH protocol on stays in intensive care."""

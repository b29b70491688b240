"""Forecasts of patients."""

"""Verdicts and plots for people, JSON for machines."""

"""Intervals, paired tests, effects and folds: what numbers say and how sure."""

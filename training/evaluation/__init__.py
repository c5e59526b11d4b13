"""Validation metrics, class matching, prediction, error analysis."""

"""Metrics, class matching, prediction, error analysis."""

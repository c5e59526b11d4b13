"""Plots of an evaluation: confusion matrix and image mosaics. They need no display."""

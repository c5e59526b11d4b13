"""Plots of an evaluation: confusion matrix and mosaics of images. Drawn without a display."""

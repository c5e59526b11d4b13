"""Pictures of a run: curves, mosaics of what the network sees, the confusion matrix. Drawn without a display."""

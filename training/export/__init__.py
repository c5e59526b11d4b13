"""Export to other programs: one writer per format, int8 calibration, the check against the checkpoint."""

"""Export: one writer per format, calibration, and the check of an export against its checkpoint."""

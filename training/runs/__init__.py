"""Run directories: their files, curves, loggers and report."""

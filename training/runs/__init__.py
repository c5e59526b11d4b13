"""Run directories: files, curves, loggers, report."""

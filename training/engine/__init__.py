"""The training loop and its parts: setup, step, EMA, meters, profiler, signals, state."""

"""The training loop and what it consists of: step, EMA, meters, profiler, signals."""

"""Where a training computes: devices, process groups, launching."""

"""Benchmarks, one module a claim: peer and ours in one run, medians of several rounds, raw numbers as JSON."""

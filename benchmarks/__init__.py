"""Benchmarks: a hot path against its peers, side by side in turns. See README.md for how to repeat one."""

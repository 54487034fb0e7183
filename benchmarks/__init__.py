"""Measurements that take minutes: python -m benchmarks.NAME."""

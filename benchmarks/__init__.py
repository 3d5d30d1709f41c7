"""Benchmarks for lazynet: `python -m benchmarks` lists them, and `python -m benchmarks NAME` runs one."""

"""Measured suites, one module each; `make bench SUITE=name` runs one."""

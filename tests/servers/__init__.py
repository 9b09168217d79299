"""Servers that tests, benchmarks and the demo start on loopback: an S3 store, an Azure one, and a proxy that fails.

Each runs in a process of its own, which ends with the block that started it, or with the process that did.
"""

"""Load and faults on running servers: ``python -m tests.load``."""

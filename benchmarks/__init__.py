"""How fast wsframe is, beside its peers: ``python -m benchmarks`` or ``pytest benchmarks``; see README.md."""

"""One script a claim; each prints one JSON line. `python -m benchmarks.<script> --help` tells its sizes."""

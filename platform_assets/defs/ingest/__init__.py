"""One folder a source, with its `defs.yaml`."""

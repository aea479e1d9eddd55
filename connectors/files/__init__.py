"""Files of a folder or an object store: which are new, and their records in bounded batches."""

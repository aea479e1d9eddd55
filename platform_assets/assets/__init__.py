"""One stream = one op = one asset, and what surrounds it: resources, schedules, partitions, metadata."""

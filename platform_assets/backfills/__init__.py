"""Backfills: planned here, kept in `ops.backfills`, run by Dagster as one backfill each."""

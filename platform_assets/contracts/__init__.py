"""A stream's contract on its way to dbt: generated files, inference from a first sync, and the plan of a change."""

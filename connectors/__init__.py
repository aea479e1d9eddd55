"""Reading sources. Nothing below this package imports Dagster."""

"""Definitions that people edit: one folder a source, one for the dbt project."""

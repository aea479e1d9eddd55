"""dlt as a reader: its sources and resources, without its pipeline."""

from connectors.dlt_source.connector import DltConnector

__all__ = ["DltConnector"]

"""Bespoke connectors, one module each, and the classes that they derive from. See docs/python.md.

HttpConnector   an HTTP API: a few facts, and a method for what no fact can say
RowsConnector   anything else: one method that yields records

The classes that end in Spec or Paging are the values that an HttpConnector's attributes have.
"""

from connectors.custom._http import HttpConnector
from connectors.custom._rows import RowsConnector
from connectors.http.specs import (
    BreakerSpec,
    CursorPaging,
    ErrorRule,
    IncrementalSpec,
    KeysetPaging,
    NextLinkPaging,
    OffsetPaging,
    PageNumberPaging,
    ParentSpec,
    RateLimitSpec,
    RetrySpec,
    TimeoutSpec,
)
from connectors.kinds.python import PythonStreamSpec as Stream

__all__ = [
    "BreakerSpec",
    "CursorPaging",
    "ErrorRule",
    "HttpConnector",
    "IncrementalSpec",
    "KeysetPaging",
    "NextLinkPaging",
    "OffsetPaging",
    "PageNumberPaging",
    "ParentSpec",
    "RateLimitSpec",
    "RetrySpec",
    "RowsConnector",
    "Stream",
    "TimeoutSpec",
]

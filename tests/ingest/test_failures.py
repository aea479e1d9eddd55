"""What each class of error makes Dagster do."""

import traceback

import dagster as dg
import pytest

from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    ContractError,
    HeadwaterError,
    LoaderError,
    RateLimited,
    ResourceError,
    SourceError,
    TransientError,
)
from connectors.specs import parse_source
from platform_assets.assets.failures import as_dagster, detach


@pytest.mark.parametrize("kind", [ConfigError, AuthError, SourceError, ContractError, ResourceError, Cancelled])
def test_an_error_that_a_retry_cannot_help_fails_for_good(kind: type[HeadwaterError]) -> None:
    failure = as_dagster(kind("shop.orders", "broke", "Mend it."), retries=3, attempt=0)

    assert isinstance(failure, dg.Failure)
    assert failure.allow_retries is False
    assert failure.description == "shop.orders: broke\nMend it."
    assert failure.metadata["failure_class"].value == kind.failure_class
    assert failure.metadata["next_step"].value == "Mend it."


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (RateLimited("shop.orders", "429", retry_after=42.0), [42.0, 42.0]),
        (TransientError("shop.orders", "503"), [5.0, 10.0]),
        (TransientError("shop.orders", "503", retry_after=0.0), [0.0, 0.0]),
        (LoaderError("shop.orders", "connection lost"), [5.0, 10.0]),
    ],
)
def test_an_error_that_passes_is_retried_after_the_time_asked_for(error: HeadwaterError, waits: list[float]) -> None:
    for attempt, seconds in enumerate(waits):
        retry = as_dagster(error, retries=2, attempt=attempt)
        assert isinstance(retry, dg.RetryRequested)
        assert (retry.max_retries, retry.seconds_to_wait) == (2, seconds)

    last = as_dagster(error, retries=2, attempt=2)
    assert isinstance(last, dg.Failure)
    assert last.metadata["attempts"].value == 3


def test_a_failure_names_its_row_in_the_ledger() -> None:
    error = SourceError("shop.orders", "HTML with status 200", "Ask the source.")
    error.sync_id = "c0ffee"  # type: ignore[attr-defined]  # the engine adds it

    assert as_dagster(error, retries=0, attempt=0).metadata["sync_id"].value == "c0ffee"  # type: ignore[union-attr]


def test_what_lies_behind_an_error_is_shown_without_the_sources_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", "https://shop.example/v1")
    monkeypatch.setenv("SHOP_TOKEN", "tok_4711_secret")
    connector = {"kind": "rest", "base_url": "env:SHOP_URL", "auth": {"type": "bearer", "token": "env:SHOP_TOKEN"}}
    streams = [{"name": "orders", "path": "/orders"}]
    source = parse_source({"source": "shop", "owner": "team:data", "connector": connector, "streams": streams}, "x")
    error = TransientError("shop.orders", "connection reset")
    error.__cause__ = OSError("GET https://shop.example/v1?key=tok_4711_secret")

    trace = detach(error, source)

    failure = as_dagster(error, retries=0, attempt=0, trace=trace)
    assert "tok_4711_secret" not in "".join(traceback.format_exception(error))
    assert "OSError: GET ••••?key=••••" in trace
    assert failure.metadata["trace"].value == trace  # type: ignore[union-attr]


def test_a_wait_without_a_wish_never_exceeds_five_minutes() -> None:
    retry = as_dagster(TransientError("shop.orders", "503"), retries=10, attempt=9)
    assert isinstance(retry, dg.RetryRequested)
    assert retry.seconds_to_wait == 300.0

"""The flights API: real HTTP with bearer token, paging, time filters, and now and then a refusal.

GET /flights?page_size=&cursor=&updated_after=&updated_before=
    {"data": [...], "next": "<opaque cursor>" | null, "total": n}, ordered by time_hour, carrier, flight, origin.
    updated_after <= time_hour < updated_before; both ISO 8601 with an offset; `total` counts the filtered flights.
GET /corrections
    {"data": [{"day": "2013-01-06T12:00:00Z"}, ...]}: days of which flights came late or were corrected.
GET /health
    {"status": "ok", "flights": n}, no token needed.

The release file can also tell it to misbehave, see demo/misbehaviour.py.

Run as `python -m demo.api --fd N`, N an open listening socket; the token comes in FLIGHTS_API_TOKEN. The process ends
when its standard input closes, so a parent that was killed never leaves it behind.
"""

import argparse
import asyncio
import base64
import binascii
import bisect
import json
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.dataset import Flight, FlightKey, read_flights
from demo.release import Release, read_release

PAGE_SIZE = 500
MAX_PAGE_SIZE = 1_000
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Refusals:
    """Which requests are refused, counted from 1 by process; the same ones every time.

    Of every `every` requests one gets 429 with Retry-After and, half a turn later, one gets 503. 0 refuses none.
    """

    every: int = 12

    def status(self, request_number: int) -> int | None:
        if self.every <= 0:
            return None
        turn = request_number % self.every
        if turn == self.every // 4:
            return 429
        return 503 if turn == self.every // 4 + self.every // 2 else None


class BadRequestError(Exception):
    """The caller's parameter cannot be used; the message names it."""


class FlightsApi:
    """The handlers and the flights they serve. Single-threaded: the counter needs no lock."""

    def __init__(self, flights: Sequence[Flight], token: str, release_file: Path, refusals: Refusals) -> None:
        self._flights = flights
        self._keys = [flight.key for flight in flights]
        self._days = [flight.day for flight in flights]
        self._token = token
        self._release_file = release_file
        self._refusals = refusals
        self._requests = 0

    def app(self) -> Starlette:
        handlers = {"/flights": self.flights, "/corrections": self.corrections, "/health": self.health}
        return Starlette(routes=[Route(path, handler) for path, handler in handlers.items()])

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "flights": self._released(read_release(self._release_file))})

    async def flights(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        try:
            return self._page(request)
        except BadRequestError as error:
            return _error(400, "bad_request", str(error))

    async def corrections(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        days = read_release(self._release_file).misbehaviour.corrected
        return JSONResponse({"data": [{"day": f"{day}T12:00:00Z"} for day in days]})

    def _refusal(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            answer = _error(401, "unauthorized", "send the header Authorization: Bearer <token>")
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        self._requests += 1
        refused = self._refusals.status(self._requests)
        if refused == 429:
            answer = _error(429, "rate_limited", f"too many requests; try again in {RETRY_AFTER_SECONDS} s")
            answer.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
            return answer
        if refused == 503:
            return _error(503, "unavailable", "briefly overloaded; try again")
        return None

    def _released(self, release: Release) -> int:
        """Flights are in order of their day too, so a release is a prefix of the list."""
        until = release.until
        return len(self._days) if until is None else bisect.bisect_right(self._days, until)

    def _page(self, request: Request) -> Response:
        query = request.query_params
        release = read_release(self._release_file)
        wrong = release.misbehaviour
        flights, keys, released = self._flights, self._keys, self._released(release)
        if wrong.hides:
            flights = wrong.shown(flights[:released])
            keys, released = [flight.key for flight in flights], len(flights)
        after = _time(query.get("updated_after"), "updated_after")
        before = _time(query.get("updated_before"), "updated_before")
        start = bisect.bisect_left(keys, (after, "", 0, ""), 0, released) if after else 0
        end = bisect.bisect_left(keys, (before, "", 0, ""), 0, released) if before else released
        end = max(start, end)
        size = _page_size(query.get("page_size"))
        cursor = query.get("cursor")
        first = max(start, bisect.bisect_right(keys, _key(cursor), 0, released)) if cursor else start
        last = min(first + size, end)
        following = json.dumps(_cursor(keys[last - 1]) if first < last < end else None)
        is_lost = first < last and wrong.lost_page == (first - start) // size + 1
        body = b'{"data": [%s], "next": %s, "total": %d}' % (
            b"" if is_lost else b", ".join(wrong.body(flight) for flight in flights[first:last]),
            following.encode(),
            end - start,
        )
        return Response(body, media_type="application/json")


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


def _time(text: str | None, name: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequestError(f"{name}: {text!r} is not an ISO 8601 time") from error
    if at.tzinfo is None:
        raise BadRequestError(f"{name}: {text!r} has no offset; end it in Z or +00:00")
    return at.astimezone(UTC)


def _page_size(text: str | None) -> int:
    if not text:
        return PAGE_SIZE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PAGE_SIZE:
        raise BadRequestError(f"page_size: {text!r} is not a number from 1 to {MAX_PAGE_SIZE}")
    return int(text)


def _cursor(key: FlightKey) -> str:
    """The last key of a page, so that rows released meanwhile neither shift nor repeat a page."""
    return base64.urlsafe_b64encode(json.dumps([key[0].isoformat(), *key[1:]]).encode()).decode()


def _key(cursor: str) -> FlightKey:
    try:
        at, carrier, flight, origin = json.loads(base64.urlsafe_b64decode(cursor))
        return datetime.fromisoformat(at), str(carrier), int(flight), str(origin)
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadRequestError("cursor: not one that this API gave out") from error


async def _serve(app: Starlette, listening: socket.socket) -> None:
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    orphaned = asyncio.create_task(_standard_input_closed())
    await asyncio.wait({serving, orphaned}, return_when=asyncio.FIRST_COMPLETED)
    orphaned.cancel()
    server.should_exit = True
    await serving


async def _standard_input_closed() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.api")
    parser.add_argument("--fd", type=int, required=True, help="an inherited, listening socket")
    parser.add_argument("--release-file", type=Path, required=True)
    parser.add_argument("--refuse-every", type=int, default=Refusals().every, help="0 refuses no request")
    options = parser.parse_args()
    token = os.environ["FLIGHTS_API_TOKEN"]
    api = FlightsApi(read_flights(), token, options.release_file, Refusals(options.refuse_every))
    # Ctrl-C reaches the whole terminal group; the parent ends us by closing the pipe, in its own order
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(api.app(), socket.socket(fileno=options.fd)))


if __name__ == "__main__":
    main()

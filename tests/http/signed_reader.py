"""Reads a source as one of several processes that share its tokens: prints how many records came.

python -m tests.http.signed_reader DSN, the source as JSON in the first line of its input, the word to go in the second
"""

import json
import sys

import psycopg

from connectors.contract import ReadContext, StreamState
from connectors.registry import kind
from connectors.specs import parse_source
from tests.http.reading import context, ids


def main() -> None:
    dsn = sys.argv[1]
    spec = parse_source(json.loads(sys.stdin.readline()), "defs.yaml")
    plain = context()
    within = ReadContext(window=None, folder=plain.folder, connect_shared=lambda: psycopg.connect(dsn, autocommit=True))
    with kind("rest").open(spec) as connector:
        print("ready", flush=True)
        sys.stdin.readline()
        print(len(ids(list(connector.read(spec.streams[0], StreamState(), within)))))


if __name__ == "__main__":
    main()

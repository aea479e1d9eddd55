"""A Singer tap that does what its configuration says. Run as a program of its own: the standard library alone.

tables: {stream: rows} are read in order of `n` from the bookmark on, a state after every `state_every` rows; `shared`
    gives all streams one position.
say: lines in place of tables. An object is a message, a text is printed as it is; `do` in an object is an act.
at: {row: act} while tables are read. once: a file that remembers that an act has been done.
An act is one of exit:CODE, kill, hang, loader, flood:LINES, fail:WORDS, eat:MB, big:TYPE,STREAM,FIELD,BYTES.
log: a file that gets a line a run: what the tap was given.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
EATEN: list[bytes] = []


def say(message: object) -> None:
    print(message if isinstance(message, str) else json.dumps(message), flush=True)


def act(what: str, config: Json) -> None:
    kind, _, rest = what.partition(":")
    sys.stdout.flush()
    match kind:
        case "exit":
            sys.exit(int(rest))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "loader":
            os.kill(config["loader"], signal.SIGKILL)
            time.sleep(600)
        case "hang":
            time.sleep(600)
        case "flood":
            for number in range(int(rest)):
                print(f"line {number} of stderr {'x' * 100}", file=sys.stderr)
        case "fail":
            print(f'Traceback (most recent call last):\n  File "tap.py", line 1, in x\n{rest}', file=sys.stderr)
            sys.exit(1)
        case "eat":
            EATEN.append(b"x" * (int(rest) << 20))
        case "big":
            message, stream, field, size = rest.split(",")
            say({"type": message, "stream": stream, field: {"n": 1, "v": "x" * int(size)}})
        case _:
            raise ValueError(what)


def do(what: str, config: Json, *, is_once: bool) -> None:
    mark = Path(config["once"]) if is_once else None
    if mark is not None and mark.exists():
        return
    if mark is not None:
        mark.touch()
    act(what, config)


def schema(config: Json) -> Json:
    fields = {"n": {"type": "integer"}, "v": {"type": ["null", "string"]}}
    return {"type": "object", "properties": config.get("properties") or fields}


def discover(config: Json) -> None:
    if "discovery" in config:
        print(config["discovery"])
        return
    about = [{"breadcrumb": [], "metadata": {"table-key-properties": ["n"]}}]
    names = config.get("streams") or config.get("tables") or ["things"]
    say(
        {
            "streams": [
                {"tap_stream_id": name, "stream": name, "schema": schema(config), "metadata": about} for name in names
            ]
        }
    )


def read(config: Json, catalog: Json, state: Json) -> None:
    tables: dict[str, int] = config["tables"]
    selected = [entry["stream"] for entry in catalog["streams"] if entry.get("selected")]
    bookmarks: Json = dict(state.get("bookmarks", {}))
    is_shared = bool(config.get("shared"))
    starts = {
        name: state.get("position", 0) if is_shared else bookmarks.get(name, {}).get("replication_key_value", 0)
        for name in selected
    }
    for name in selected:
        say({"type": "SCHEMA", "stream": name, "schema": schema(config), "key_properties": ["n"]})
    last = max(tables.values())
    for row in range(1, last + 1):
        if what := config.get("at", {}).get(str(row)):
            do(what, config, is_once="once" in config)
        for name in selected:
            if starts[name] < row <= tables[name]:
                say({"type": "RECORD", "stream": name, "record": {"n": row, "v": f"value {row}"}})
        if row % config.get("state_every", 100) == 0 or row == last:
            marks = {name: {"replication_key_value": max(min(row, tables[name]), starts[name])} for name in selected}
            split = {"bookmarks": {**bookmarks, **marks}, "currently_syncing": selected[0]}
            one = {"position": max(row, state.get("position", 0))}
            say({"type": "STATE", "value": one if is_shared else split})


def main() -> None:
    if "--discover" in sys.argv:
        words = {"--config": sys.argv[2]}
    else:
        words = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    files = {word: Path(path) for word, path in words.items()}
    given: dict[str, Json] = {word: json.loads(path.read_text(encoding="utf-8")) for word, path in files.items()}
    config = given.pop("--config")
    if "log" in config:
        modes = {word: oct(path.stat().st_mode & 0o777) for word, path in files.items()}
        call = {"given": given, "modes": modes, "env": dict(os.environ), "pid": os.getpid()}
        with Path(config["log"]).open("a", encoding="utf-8") as log:
            log.write(f"{json.dumps(call)}\n")
    if "--discover" in sys.argv:
        if what := config.get("discover_fails"):
            act(what, config)
        discover(config)
    elif "say" in config:
        for item in config["say"]:
            if isinstance(item, dict) and "do" in item:
                do(item["do"], config, is_once=bool(item.get("once")))
            else:
                say(item)
    else:
        read(config, given["--catalog"], given.get("--state", {}))


if __name__ == "__main__":
    main()

"""A Singer tap that does what its configuration says. Run as a program of its own: the standard library alone.

tables: {stream: rows} are read in order of `n` from the bookmark on, a state after every `state_every` rows.
say: lines in place of tables; an object is a message, a text is printed as it is. `do` in an object is an act.
at: {row of the first table: act}, once: a file that remembers that it has been done.
An act is one of exit:<code>, kill, hang, flood:<lines>, fail:<words>.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


CONFIG = {}


def say(message):
    print(message if isinstance(message, str) else json.dumps(message), flush=True)


def act(what):
    kind, _, rest = what.partition(":")
    if kind == "exit":
        sys.exit(int(rest))
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(600)
    if kind == "loader":
        os.kill(CONFIG["loader"], signal.SIGKILL)
        time.sleep(600)
    if kind == "flood":
        for number in range(int(rest)):
            print(f"line {number} of stderr " + "x" * 100, file=sys.stderr)
    if kind == "fail":
        print('Traceback (most recent call last):\n  File "tap.py", line 1, in x\n' + rest, file=sys.stderr)
        sys.exit(1)
    if kind == "eat":
        CONFIG["eaten"] = b"x" * (int(rest) << 20)
    if kind == "big":
        print(
            '{"type": "%s", "stream": "%s", "%s": {"n": 1, "v": "%s"}}'
            % (*rest.split(",")[:3], "x" * int(rest.split(",")[3]))
        )


def schema(config, stream):
    properties = config.get("properties") or {"n": {"type": "integer"}, "v": {"type": ["null", "string"]}}
    return {"type": "object", "properties": properties}


def discover(config):
    if "discovery" in config:
        print(config["discovery"])
        return
    streams = [
        {
            "tap_stream_id": name,
            "stream": name,
            "schema": schema(config, name),
            "key_properties": ["n"],
            "metadata": [{"breadcrumb": [], "metadata": {"table-key-properties": ["n"]}}],
        }
        for name in config.get("streams") or config.get("tables") or ["things"]
    ]
    print(json.dumps({"streams": streams}))


def due(config, row):
    what = config.get("at", {}).get(str(row))
    mark = config.get("once")
    if what is None or (mark and os.path.exists(mark)):
        return
    if mark:
        Path(mark).touch()
    sys.stdout.flush()
    act(what)


def read(config, catalog, state):
    bookmarks = state.get("bookmarks", {})
    shared = config.get("shared")
    position = state.get("position", 0)
    selected = [entry["stream"] for entry in catalog["streams"] if entry.get("selected")]
    for name in selected:
        say({"type": "SCHEMA", "stream": name, "schema": schema(config, name), "key_properties": ["n"]})
    tables = config["tables"]
    every = config.get("state_every", 100)
    for row in range(1, max(tables.values()) + 1):
        for index, name in enumerate(selected):
            if index == 0:
                due(config, row)
            start = position if shared else bookmarks.get(name, {}).get("replication_key_value", 0)
            first = start if config.get("is_inclusive") and start else start + 1
            if first <= row <= tables[name] and row >= first:
                body = {"n": row, "v": config.get("prefix", "value ") + str(row)}
                say({"type": "RECORD", "stream": name, "record": body})
        if row % every == 0:
            if shared:
                if row > position:
                    say({"type": "STATE", "value": {"position": row}})
            else:
                marks = {
                    name: {
                        "replication_key_value": max(
                            min(row, tables[name]), bookmarks.get(name, {}).get("replication_key_value", 0)
                        )
                    }
                    for name in selected
                }
                say({"type": "STATE", "value": {"bookmarks": {**bookmarks, **marks}, "currently_syncing": selected[0]}})
    if shared:
        say({"type": "STATE", "value": {"position": max(tables.values())}})
    else:
        say(
            {
                "type": "STATE",
                "value": {"bookmarks": {**bookmarks, **{n: {"replication_key_value": tables[n]} for n in selected}}},
            }
        )


def main():
    words = dict(zip(sys.argv[1::2], sys.argv[2::2])) if "--discover" not in sys.argv else {"--config": sys.argv[2]}
    config = json.loads(Path(words["--config"]).read_text())
    CONFIG.update(config)
    if "log" in config:
        with open(config["log"], "a") as log:
            given = {key: json.loads(Path(path).read_text()) for key, path in words.items() if key != "--config"}
            modes = {key: oct(os.stat(path).st_mode & 0o777) for key, path in words.items()}
            log.write(json.dumps({"given": given, "modes": modes, "env": dict(os.environ), "pid": os.getpid()}) + "\n")
    if "--discover" in sys.argv:
        if config.get("discover_fails"):
            act(config["discover_fails"])
        return discover(config)
    if "say" in config:
        for item in config["say"]:
            if isinstance(item, dict) and "do" in item:
                sys.stdout.flush()
                if item.get("once") and os.path.exists(config["once"]):
                    continue
                if item.get("once"):
                    Path(config["once"]).touch()
                act(item["do"])
            else:
                say(item)
        return None
    catalog = json.loads(Path(words.get("--catalog") or words["--properties"]).read_text())
    state = json.loads(Path(words["--state"]).read_text()) if "--state" in words else {}
    return read(config, catalog, state)


if __name__ == "__main__":
    main()

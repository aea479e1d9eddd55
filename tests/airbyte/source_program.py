"""An Airbyte source that says what its script tells it to. Run as a program of its own: the standard library alone.

The configuration names the script, a JSON file: {spec, check, catalog, reads}. The n-th read prints the n-th of
`reads`; a text is printed as it is. Acts are {"do": "exit", "code": n}, {"do": "kill"}, {"do": "hang"},
{"do": "flood", "lines": n} of stderr, and {"do": "big", "size": n, "of": message} with so long a text for its "BIG".
What a read was given is kept in `<script>.seen`, one JSON line a read.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def option(name):
    return json.loads(Path(sys.argv[sys.argv.index(name) + 1]).read_text()) if name in sys.argv else None


def say(message):
    if isinstance(message, dict) and message.get("do") == "exit":
        sys.exit(message["code"])
    if isinstance(message, dict) and message.get("do") == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if isinstance(message, dict) and message.get("do") == "hang":
        time.sleep(600)
    if isinstance(message, dict) and message.get("do") == "flood":
        print("\n".join(f"line {number} of stderr" for number in range(message["lines"])), file=sys.stderr)
        return
    if isinstance(message, dict) and message.get("do") == "big":
        message = json.dumps(message["of"]).replace("BIG", "x" * message["size"])
    print(message if isinstance(message, str) else json.dumps(message), flush=True)


def main():
    verb = sys.argv[1]
    if verb == "spec":
        # it has no configuration yet: its own variable says where the script is
        script = json.loads(Path(os.environ["SCRIPT"]).read_text()) if "SCRIPT" in os.environ else {}
        say({"type": "SPEC", "spec": {"connectionSpecification": script.get("spec", {})}})
        return
    config = option("--config")
    script = json.loads(Path(config["script"]).read_text())
    if verb == "check":
        for message in script.get("say", ()):
            say(message)
        say({"type": "CONNECTION_STATUS", "connectionStatus": script.get("check", {"status": "SUCCEEDED"})})
    elif verb == "discover":
        say({"type": "CATALOG", "catalog": {"streams": script["catalog"]}})
    else:
        seen = config["script"] + ".seen"
        given = {"state": option("--state"), "catalog": option("--catalog"), "config": config}
        with Path(seen).open("a+") as file:
            file.seek(0)
            number = len(file.readlines())
            file.write(json.dumps(given) + "\n")
        for message in script["reads"][min(number, len(script["reads"]) - 1)]:
            say(message)


main()

"""A server on standard streams for tests, without the SDK: `line_server.py BEHAVIOUR`."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

behaviour = sys.argv[1]
PROBE = "server/discover"


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def say(number: object, text: str) -> None:
    send({"id": number, "result": {"content": [{"type": "text", "text": text}]}})


def tools() -> list[dict[str, Any]]:
    return [
        {"name": name, "inputSchema": {"type": "object"}}
        for name in ("act", "die", "environment", "cancelled", "who")
    ]


def main() -> None:  # noqa: C901, PLR0912 - one behaviour after the other
    cancelled: list[object] = []
    held: list[tuple[object, object]] = []
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "parent":
        child = subprocess.Popen(["sleep", "600"])
        sys.stderr.write(f"child {child.pid}\n")
        sys.stderr.flush()
    if behaviour == "noisy":
        sys.stdout.write("Welcome to the server!\n\n")
        sys.stderr.write("loading \x1b[31mred\n")
    for line in sys.stdin:
        message = json.loads(line)
        number, method = message.get("id"), message.get("method")
        if method == PROBE and behaviour == "encoding":
            found = b'{"supportedVersions":["2026-07-28"],"capabilities":{},"x":"\xff"}'
            sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":%d,"result":%b}\n' % (number, found))
            sys.stdout.buffer.flush()
            send({"id": number, "error": {"code": -32601, "message": "?"}})
        elif method == PROBE:
            if behaviour != "silent":
                send({"id": number, "error": {"code": -32601, "message": "?"}})
        elif method == "initialize":
            send(
                {
                    "id": number,
                    "result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}},
                }
            )
        elif method == "tools/list":
            send({"id": number, "result": {"tools": tools()}})
        elif method == "notifications/cancelled":
            cancelled.append(message["params"]["requestId"])
        elif method == "tools/call":
            name = message["params"]["name"]
            if name == "die":
                os._exit(7)
            elif name == "environment":
                say(number, json.dumps(dict(os.environ)))
            elif name == "cancelled":
                say(number, str(len(cancelled)))
            elif name == "who":
                say(number, str(os.getpid()))
            elif behaviour == "shuffled":
                held.append((number, message["params"]["arguments"].get("n")))
                if len(held) == 50:
                    for each, value in reversed(held):
                        say(each, f"n{value}")
            elif behaviour == "hung":
                continue
            elif behaviour == "deaf":
                time.sleep(600)
            elif behaviour == "endless":
                while True:
                    sys.stdout.write("x" * 65_536)
            elif behaviour == "flood":
                while True:
                    send({"method": "notifications/message", "params": {}})
            elif behaviour == "asks":
                while True:
                    send({"id": "s", "method": "sampling/createMessage", "params": {}})
            elif behaviour == "garbage":
                while True:
                    sys.stdout.write("{]\n")
            elif behaviour == "wrong-ids":
                for wrong in (None, "1", str(number), -1, 10**9):
                    say(wrong, "wrong")
                say(number, "right")
                say(number, "again")
            elif behaviour == "asks-late":
                if message["params"]["arguments"].get("n") == 1:
                    continue
                send({"id": 1, "method": "elicitation/create", "params": {"message": "Size?"}})
                answer = {}
                while "result" not in answer:  # a cancellation may come first
                    answer = json.loads(sys.stdin.readline())
                say(number, answer["result"]["action"])
            elif behaviour == "encoding":
                token = message["params"]["_meta"]["progressToken"]
                params = b'{"progressToken":%d,"progress":1,"message":"\xff"}' % token
                sys.stdout.buffer.write(
                    b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}\n' % params
                )
                say(number, "done")
            elif behaviour == "elicits":
                send({"id": 1, "method": "elicitation/create", "params": {"message": "Size?"}})
                answer = json.loads(sys.stdin.readline())
                say(number, answer["result"]["action"])
            else:
                say(number, "done")
    if behaviour == "stubborn":
        time.sleep(600)


main()

"""The model of the harness: OpenAI's chat completions, for models that never say a thing twice.

It makes the refunds that the user's message names. Each time it is asked, also for a turn that it
was asked before, it writes the calls anew: keys in another order, numbers and white space in
another form, another reason or none, other call ids, two calls in one step or in two, in either
order. What it writes is determined by the seed, the message, and how often it was asked.

    python -m bench.effects.model SEED

Prints its URL as a JSON line.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from typing import Any

from bench.effects.http_service import Handler, Server
from bench.effects.wishes import Operation, Wish, parse

__all__ = ["Reply", "reply", "wordings"]

REASONS = ("", "The customer asked for it.", "customer request", "Asked for by the customer")
_SECONDS = (0.005, 0.03)
_SLOW_SHARE, _SLOW_SECONDS = 0.15, 0.8  # so that leases are renewed
Reply = tuple[str, list[tuple[str, str, str]]]
"""Text, and calls as id, tool and arguments."""


class ModelFails(Exception):
    """The wish says that the model fails."""


def wordings(operation: Operation, chance: random.Random) -> str:
    """The arguments of a refund as JSON, in one of many wordings that mean the same."""
    amount = operation.amount
    number = chance.choice([repr(amount), f"{amount:.2f}", f"{amount:.3e}", f'"{amount}"'])
    if amount.is_integer() and chance.random() < 0.5:
        number = str(int(amount))
    members = [
        ("op", json.dumps(operation.op)),
        ("order", json.dumps(operation.order)),
        ("amount", number),
    ]
    reason = chance.choice([None, "null", *map(json.dumps, REASONS)])
    if reason is not None:
        members.append(("reason", reason))
    chance.shuffle(members)
    colon, comma = chance.choice([":", ": ", " : "]), chance.choice([",", ", ", ",\n  "])
    return "{" + comma.join(f'"{name}"{colon}{value}' for name, value in members) + "}"


def reply(messages: list[dict[str, Any]], chance: random.Random) -> Reply:
    """What the model answers.

    Args:
        messages: Of the request.
        chance: Decides the wording.

    Raises:
        ModelFails: The user's message says so.
    """
    last = max(at for at, each in enumerate(messages) if each["role"] == "user")
    wish = parse(_text(messages[last]))
    if wish is None:
        return "Hello.", []
    known = _outcomes(messages[last + 1 :])
    if wish.asks:
        known |= _mentioned(wish, messages[:last], known)
    open_ = [each for each in wish.operations if each.op not in known]
    if not open_:
        if wish.fails:
            raise ModelFails
        return "; ".join(known[each.op] for each in wish.operations), []
    chance.shuffle(open_)
    if len(open_) > 1 and chance.random() < 0.5:
        open_ = open_[:1]
    return "", [
        (f"call_{chance.randrange(1 << 48):012x}", each.tool, wordings(each, chance))
        for each in open_
    ]


def _outcomes(messages: list[dict[str, Any]]) -> dict[str, str]:
    """The results of calls by operation."""
    operations: dict[str, str] = {}
    found: dict[str, str] = {}
    for each in messages:
        for call in each.get("tool_calls") or ():
            operations[call["id"]] = json.loads(call["function"]["arguments"])["op"]
        if each["role"] == "tool" and each["tool_call_id"] in operations:
            op = operations[each["tool_call_id"]]
            content = _text(each)
            found[op] = content if op in content else f"{op}: {content}"
    return found


def _mentioned(wish: Wish, messages: list[dict[str, Any]], known: dict[str, str]) -> dict[str, str]:
    """What the conversation before says about operations that have no result in this turn."""
    before = _outcomes(messages)
    found: dict[str, str] = {}
    for each in wish.operations:
        if each.op in known:
            continue
        if each.op in before:
            found[each.op] = before[each.op]
            continue
        said = [
            json.dumps(message)
            for message in messages
            if message["role"] != "user" and each.op in json.dumps(message)
        ]
        if said:
            found[each.op] = f"{each.op}: mentioned, without a result"
    return found


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _chunks(answer: Reply, model: str) -> list[bytes]:
    """The answer as server-sent events."""
    text, calls = answer

    def frame(delta: dict[str, object], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": model,
            "choices": [choice],
        }
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    frames = [frame({"role": "assistant"})]
    frames += [frame({"content": text})] if text else []
    for index, (call, name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": arguments}
        entry = {"index": index, "id": call, "type": "function", "function": function}
        frames.append(frame({"tool_calls": [entry]}))
    frames.append(frame({}, "tool_calls" if calls else "stop"))
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    last = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": usage}
    return [*frames, b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n"]


def _handler(seed: int) -> type[Handler]:
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    class Answering(Handler):
        def do_POST(self) -> None:  # noqa: N802 - of http.server
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            messages = request["messages"]
            wanted = next(_text(each) for each in reversed(messages) if each["role"] == "user")
            with lock:
                asked[wanted] += 1
                chance = random.Random(f"{seed} {wanted} {asked[wanted]}")
            slow = _SLOW_SECONDS if chance.random() < _SLOW_SHARE else 0.0
            time.sleep(slow + chance.uniform(*_SECONDS))
            try:
                frames = _chunks(reply(messages, chance), request["model"])
            except ModelFails:
                self.send(400, "application/json", b'{"error": {"message": "It fails."}}')
                return
            self.send(200, "text/event-stream", b"".join(frames))

        def do_GET(self) -> None:  # noqa: N802 - of http.server
            self.send(200, "application/json", b'{"object": "list", "data": []}')

    return Answering


def main(seed: int) -> None:
    """Serve until the process is ended."""
    server = Server(("127.0.0.1", 0), _handler(seed))
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.server_port}/v1"}) + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))

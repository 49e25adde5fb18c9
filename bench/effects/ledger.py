"""The external service of the harness: a ledger of refunds, in a process and a database of its own.

`POST /refunds` has a body `{"op": …, "tool": …, "order": …, "amount": …, "reason": …}`. With the
header `Idempotency-Key` a refund is made once for a key, and repeated requests get the first
answer; without it every request is a refund. `GET /refunds/OP` says whether an operation was
refunded. Every request is in the log, which the checker reads from the database.

    python -m bench.effects.ledger PATH

Prints its URL as a JSON line.
"""

import json
import random
import sqlite3
import sys
import threading
import time
from pathlib import Path

import msgspec
from bench.effects.http_service import Handler, Server
from msgspec import Struct

__all__ = ["Refund", "read_log"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    op TEXT NOT NULL,
    tool TEXT NOT NULL,
    key TEXT,
    body TEXT NOT NULL,
    applied INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS log_by_key ON log (key);
CREATE INDEX IF NOT EXISTS log_by_op ON log (op);
"""
_PAUSE_SECONDS = (0.002, 0.02)  # before and after a refund is made


class Refund(Struct, frozen=True, kw_only=True):
    """A request to the ledger.

    Attributes:
        number: In the order in which they were made.
        at: Unix seconds.
        op: The operation that the user asked for.
        tool: The tool that made the request.
        key: Its idempotency key; None for none.
        body: The arguments, as canonical JSON.
        applied: Whether money was moved; False for a repetition under a known key.
    """

    number: int
    at: float
    op: str
    tool: str
    key: str | None
    body: str
    applied: bool


def read_log(database: Path) -> list[Refund]:
    """All requests, in their order."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT number, at, op, tool, key, body, applied FROM log ORDER BY number"
        ).fetchall()
    finally:
        connection.close()
    names = Refund.__struct_fields__
    return [
        msgspec.convert(dict(zip(names, row, strict=True)), Refund, strict=False) for row in rows
    ]


class _Ledger:
    """The database; one request at a time."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")  # this process is never killed
        self._connection.executescript(_SCHEMA)
        self._lock = threading.Lock()

    def refund(self, body: dict[str, object], key: str | None) -> int:
        """Make a refund, or find the one with the key; the number of its receipt."""
        with self._lock:
            known = None
            if key is not None:
                known = self._connection.execute(
                    "SELECT number FROM log WHERE key = ? AND applied", (key,)
                ).fetchone()
            row = self._connection.execute(
                "INSERT INTO log (at, op, tool, key, body, applied) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    time.time(),
                    body["op"],
                    body["tool"],
                    key,
                    json.dumps(body, sort_keys=True),
                    known is None,
                ),
            )
            return int(known[0] if known is not None else row.lastrowid or 0)

    def find(self, op: str) -> int | None:
        """The receipt of an operation that was refunded."""
        with self._lock:
            row = self._connection.execute(
                "SELECT number FROM log WHERE op = ? AND applied", (op,)
            ).fetchone()
        return None if row is None else int(row[0])


def _handler(ledger: _Ledger) -> type[Handler]:
    class Answering(Handler):
        def do_POST(self) -> None:  # noqa: N802 - of http.server
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            time.sleep(random.uniform(*_PAUSE_SECONDS))
            receipt = ledger.refund(body, self.headers.get("idempotency-key"))
            time.sleep(random.uniform(*_PAUSE_SECONDS))
            self._answer({"receipt": receipt})

        def do_GET(self) -> None:  # noqa: N802 - of http.server
            self._answer({"receipt": ledger.find(self.path.rpartition("/")[2])})

        def _answer(self, document: dict[str, object]) -> None:
            self.send(200, "application/json", json.dumps(document).encode())

    return Answering


def main(database: Path) -> None:
    """Serve until the process is ended."""
    server = Server(("127.0.0.1", 0), _handler(_Ledger(database)))
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}) + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

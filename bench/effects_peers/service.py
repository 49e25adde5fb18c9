"""A refund service: a process of its own with a ledger in SQLite that counts every refund."""

import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

LEDGER = sqlite3.connect(sys.argv[1])
LEDGER.execute("CREATE TABLE IF NOT EXISTS refunds (run TEXT, key TEXT, reason TEXT)")


class Handler(BaseHTTPRequestHandler):
    """POST makes a refund; with a key that is known, it answers without making one."""

    def do_POST(self) -> None:
        """Refund."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        run, key = asked["run"], self.headers.get("Idempotency-Key")
        known = (
            key
            and LEDGER.execute(
                "SELECT 1 FROM refunds WHERE run = ? AND key = ?", (run, key)
            ).fetchone()
        )
        if not known:
            LEDGER.execute("INSERT INTO refunds VALUES (?, ?, ?)", (run, key, asked["reason"]))
            LEDGER.commit()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"refunded")

    def log_message(self, *_: object) -> None:
        """Nothing."""


HTTPServer.request_queue_size = 128
server = HTTPServer(("127.0.0.1", 0), Handler)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()

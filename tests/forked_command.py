"""The command `seawall` of a shell that has a fork server; `tests.fork_server.shell_command`.

It imports little, since each command starts with it.
"""

import json
import os
import signal
import socket
import sys

# Replaced: of the server's socket, in hexadecimal digits, and what precedes the arguments.
ADDRESS = ""
ARGUMENTS = []  # type: ignore[var-annotated]


def main() -> int:
    reader, writer = os.pipe()
    folder = os.getcwd()  # noqa: PTH109 - pathlib takes as long to import as all others
    request = json.dumps([ARGUMENTS + sys.argv[1:], dict(os.environ), folder, False]).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        server.connect(bytes.fromhex(ADDRESS))
        socket.send_fds(server, [request], [0, 1, 2, writer])
    os.close(writer)
    with open(reader, "rb", buffering=0) as status:  # noqa: PTH123 - a descriptor
        pid = int(status.readline())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        ended = int(status.read())
    return ended if ended >= 0 else 128 - ended


sys.exit(main())

"""A real balancer in front of servers: haproxy, round robin, without retries."""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.parts import require
from tests.parts.system import missing_balancer

CONFIGURATION = """
global
    maxconn 4096
    log stderr local0 emerg
defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    option http-keep-alive
    option http-no-delay
frontend front
    bind 127.0.0.1:{port}
    http-response set-header x-served-by %s
    default_backend servers
backend servers
    balance roundrobin
    retries 0
    {check}
{servers}
"""


def require_balancer(kind: str = "haproxy") -> None:
    """Skip the test where there is none; on CI (SEAWALL_REQUIRE_ALL=1) fail instead."""
    require(missing_balancer(kind))


@contextmanager
def running_balancer(urls: Sequence[str], *, checked: bool = False) -> Iterator[str]:
    """The URL of a balancer in front of `urls` until the block ends.

    checked: it asks each server's `/readyz` five times a second, and sends turns only to those
    that say yes.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    how = " check inter 200ms fall 1 rise 1" if checked else ""
    servers = "\n".join(
        f"    server s{index} {url.removeprefix('http://')}{how}" for index, url in enumerate(urls)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "haproxy.cfg"
        file.write_text(
            CONFIGURATION.format(
                port=port, servers=servers, check="option httpchk GET /readyz" if checked else ""
            )
        )
        process = subprocess.Popen(["haproxy", "-db", "-f", file], stderr=subprocess.PIPE)
        try:
            _wait(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None and process.stderr is not None:
            raise RuntimeError(f"haproxy ended: {process.stderr.read().decode()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("haproxy did not start")

"""The load balancer in front of pods: haproxy or nginx."""

import asyncio
import os
import shutil
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from seawall.errors import ConfigError, SeawallError
from seawall.lab.processes import Service, parent_death_signal, raise_file_limit

__all__ = ["find_balancer", "run_balancer"]

_START_SECONDS = 20.0
# Upper bounds, since both allocate memory per connection and the file limit may be 2**30.
_HAPROXY_CONNECTIONS = 262_144
_NGINX_CONNECTIONS = 65_536
_HAPROXY = """\
global
    maxconn {connections}
    log stderr local0 emerg
defaults
    mode http
    timeout connect 10s
    timeout client 900s
    timeout server 900s
    option http-keep-alive
    option http-no-delay
frontend front
    bind 127.0.0.1:{port} backlog {connections}
    default_backend pods
backend pods
    balance {balance}
    option httpchk GET /readyz
    retries 0
{servers}
"""
# One process: nginx workers do not inherit the mark in the environment.
_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream pods {{
        {balance}
{servers}
        keepalive 256;
    }}
    server {{
        listen 127.0.0.1:{port} backlog={backlog};
        location / {{
            proxy_pass http://pods;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_next_upstream off;
            proxy_read_timeout 900s;
        }}
    }}
}}
"""


def find_balancer(path: str | None = None) -> tuple[str, str]:
    """Find haproxy or nginx.

    Args:
        path: Folders to search, in place of PATH and the usual folders.

    Returns:
        "haproxy" or "nginx", and the path of the program.

    Raises:
        ConfigError: Neither is installed.
    """
    folders = path or f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    for kind in ("haproxy", "nginx"):
        if program := shutil.which(kind, path=folders):
            return kind, program
    raise ConfigError("a fleet of pods needs a balancer: install haproxy or nginx")


@asynccontextmanager
async def run_balancer(
    urls: Sequence[str],
    folder: Path,
    *,
    balance: str = "least",
    environment: Mapping[str, str] | None = None,
    found: tuple[str, str] | None = None,
) -> AsyncGenerator[Service, None]:
    """Run a balancer, without retries, until the block ends.

    Args:
        urls: Of the servers.
        folder: For its configuration.
        balance: "least" (connections), or round robin.
        environment: Of the process; None for the current one.
        found: Kind and path of the program, as `find_balancer` returns them.

    Raises:
        ConfigError: Neither haproxy nor nginx is installed.
        SeawallError: It did not start.
    """
    kind, program = found or find_balancer()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = folder / f"{kind}.conf"
    path.write_text(_configuration(kind, port, urls, folder, balance))
    options = ("-db", "-f") if kind == "haproxy" else ("-e", "stderr", "-c")
    process = await asyncio.create_subprocess_exec(
        *(program, *options, path),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        env=environment,
        preexec_fn=parent_death_signal(signal.SIGTERM),
    )
    try:
        await _wait_until_ready(port, process, kind)
        yield Service(f"http://127.0.0.1:{port}", process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _configuration(kind: str, port: int, urls: Sequence[str], folder: Path, balance: str) -> str:
    files = raise_file_limit()
    connections = min(max(256, files // 2 - 500), _HAPROXY_CONNECTIONS)
    addresses = [each.removeprefix("http://") for each in urls]
    if kind == "haproxy":
        lines = [
            f"    server pod{number} {address} check inter 500ms fall 3 rise 1"
            for number, address in enumerate(addresses)
        ]
        algorithm = "leastconn" if balance == "least" else "roundrobin"
        return _HAPROXY.format(
            port=port, balance=algorithm, servers="\n".join(lines), connections=connections
        )
    lines = [f"        server {address} max_fails=0;" for address in addresses]
    return _NGINX.format(
        port=port,
        balance="least_conn;" if balance == "least" else "",
        servers="\n".join(lines),
        connections=min(files, _NGINX_CONNECTIONS),
        backlog=min(connections, 4_096),
        folder=folder,
    )


async def _wait_until_ready(port: int, process: asyncio.subprocess.Process, kind: str) -> None:
    """Wait until the balancer reaches a pod."""
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                if await _status(port) == b"200":
                    return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise SeawallError(f"{kind} reaches no pod after {_START_SECONDS:g} s") from error
    errors = await process.stderr.read() if process.stderr else b""
    raise SeawallError(f"{kind} ended: {errors.decode('utf-8', 'replace').strip()}")


async def _status(port: int) -> bytes:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n")
        return (await reader.read(64))[9:12]
    except OSError:
        return b""
    finally:
        writer.close()

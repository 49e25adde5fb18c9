"""Real proxies in their usual configuration."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["running_haproxy", "running_nginx"]

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
            {extra}
        }}
    }}
}}
"""
_HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    {extra}
frontend front
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    server one {address}
"""


@contextmanager
def running_nginx(folder: Path, url: str, extra: str = "") -> Iterator[str]:
    """The URL of an nginx in front of `url`; extra: directives beside `proxy_pass`."""
    port = _free_port()
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(folder=folder, port=port, url=url, extra=extra))
    program = _program("nginx")
    with _running(port, [program, "-c", str(file), "-p", str(folder)]) as front:
        yield front


@contextmanager
def running_haproxy(folder: Path, url: str, extra: str = "") -> Iterator[str]:
    """The URL of an haproxy in front of `url`; extra: lines of the section `defaults`."""
    port = _free_port()
    file = folder / "haproxy.cfg"
    address = url.removeprefix("http://")
    file.write_text(_HAPROXY.format(port=port, address=address, extra=extra))
    with _running(port, [_program("haproxy"), "-db", "-f", str(file)]) as front:
        yield front


def _program(kind: str) -> str:
    return shutil.which(kind) or shutil.which(kind, path="/usr/sbin:/usr/local/sbin") or kind


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def _running(port: int, command: list[str]) -> Iterator[str]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)

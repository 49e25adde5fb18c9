"""SeaweedFS, an S3 server that checks signatures, as a child process for tests."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from tests.parts import require
from tests.parts.seaweedfs import PROGRAM, missing

__all__ = ["ENVIRONMENT", "running_s3"]

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATESTKEY",
    "AWS_SECRET_ACCESS_KEY": "secret/with+signs",
    "AWS_REGION": "eu-west-1",
}
_START_SECONDS = 60.0
_SERVICES = ("master.port", "volume.port", "filer.port", "s3.port")


@contextmanager
def running_s3(folder: Path) -> Iterator[str]:
    """The URL of an empty server that runs until the block ends, or this process does.

    Args:
        folder: For its data.
    """
    require(missing())
    names = (each + kind for each in _SERVICES for kind in ("", ".grpc"))
    ports = dict(zip(names, _free_ports(2 * len(_SERVICES)), strict=True))
    keys = {
        "accessKey": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        "secretKey": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    }
    rights = ["Admin", "Read", "Write", "List"]
    identity = {"name": "test", "credentials": [keys], "actions": rights}
    configuration = folder / "s3.json"
    configuration.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    (folder / "data").mkdir()
    setpriv = shutil.which("setpriv")
    tied = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *tied,
                *(str(PROGRAM), "server", f"-dir={folder / 'data'}"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
                *(f"-{name}={port}" for name, port in ports.items()),
                *(f"-s3.config={configuration}", "-s3.domainName=s3.test"),
                *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-volume.max=20"),
                *("-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false"),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)},
        )
    try:
        _wait_until_it_answers(process, ports["s3.port"])
        yield f"http://127.0.0.1:{ports['s3.port']}"
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"SeaweedFS ended with status {process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            if connection.getresponse().status == 403:  # it is not signed
                return
        time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not answer within {_START_SECONDS:.0f} seconds")

"""Amazon's DynamoDB Local as a child process, in memory, for tests and benchmarks."""

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.install_dynamodb_local import FOLDER, JAVA, java_version

START_SECONDS = 60.0

# Any credentials do, but the access key must be letters and digits.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "eu-west-1",
}


def missing() -> str:
    """What keeps DynamoDB Local from running here; empty if nothing does."""
    if not (FOLDER / "installed").is_file():
        return "DynamoDB Local is not installed: python tests/install_dynamodb_local.py"
    if java_version() < JAVA:
        return f"Java {JAVA} or later is not installed"
    return ""


def require_dynamodb() -> None:
    """Skip the test where the server cannot run; on CI (SEAWALL_REQUIRE_ALL=1) fail instead."""
    if reason := missing():
        if os.environ.get("SEAWALL_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def running_dynamodb() -> Iterator[str]:
    """The URL of an empty server that runs until the block ends, or this process does."""
    port = _free_port()
    # On Linux the kernel ends the server with us, even if we are killed.
    tied = [shutil.which("setpriv"), "--pdeathsig", "KILL", "--"] if _can_tie() else []
    process = subprocess.Popen(
        [
            *(str(each) for each in tied),
            *("java", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            "-Djava.library.path=./DynamoDBLocal_lib",
            *(
                "-jar",
                "DynamoDBLocal.jar",
                "-inMemory",
                "-sharedDb",
                "-disableTelemetry",
                "-port",
                str(port),
            ),
        ],
        cwd=FOLDER,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(Path.home())},
    )
    try:
        _wait_until_it_answers(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _can_tie() -> bool:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return False
    said = subprocess.run([setpriv, "--help"], capture_output=True, text=True, check=False).stdout
    return "--pdeathsig" in said


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"DynamoDB Local ended with status {process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        time.sleep(0.1)
    raise RuntimeError(f"DynamoDB Local did not answer within {START_SECONDS:.0f} seconds")

"""Amazon's DynamoDB Local as a child process, in memory, for tests and benchmarks.

`python -m tests.dynamodb_local PID` runs one until the process PID ends, and prints its URL.
"""

import http.client
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.once import once
from tests.parts import require
from tests.parts.dynamodb_local import FOLDER, missing

__all__ = ["ENVIRONMENT", "require_dynamodb", "running_dynamodb", "shared_dynamodb"]

START_SECONDS = 60.0
# What a store asks first. A new server loads its code with these, for seconds on a busy machine.
_KEY = {"pk": {"S": "a"}}
_PUT = {"Item": _KEY, "ConditionExpression": "attribute_not_exists(pk)"}
_FIRST: tuple[tuple[str, dict[str, object]], ...] = (
    (
        "CreateTable",
        {
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        },
    ),
    ("TransactWriteItems", {"TransactItems": [{"Put": {"TableName": "first"} | _PUT}]}),
    (
        "UpdateItem",
        {
            "Key": _KEY,
            "UpdateExpression": "SET n = :n",
            "ExpressionAttributeValues": {":n": {"N": "1"}},
        },
    ),
    (
        "Query",
        {"KeyConditionExpression": "pk = :k", "ExpressionAttributeValues": {":k": _KEY["pk"]}},
    ),
    ("DeleteTable", {}),
)

# Any credentials do, but the access key must be letters and digits.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "eu-west-1",
}


_kept: list[
    "subprocess.Popen[str]"
] = []  # not to be reaped: they outlive the process that started them


def require_dynamodb() -> None:
    """Skip the test where the server cannot run; on CI (SEAWALL_REQUIRE_ALL=1) fail instead."""
    require(missing())


def shared_dynamodb(owner: int) -> str:
    """The URL of a server that all processes of a test run share; the first one starts it.

    Args:
        owner: The process with which the server ends.
    """
    return once("dynamodb.url", lambda: _start(owner))


def _start(owner: int) -> str:
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.dynamodb_local", str(owner)],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    _kept.append(keeper)
    assert keeper.stdout is not None
    with keeper.stdout as printed:
        url = printed.readline().strip()
    if not url:
        raise RuntimeError("DynamoDB Local did not start")
    return url


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
            _ask_first(port)
            return
        time.sleep(0.1)
    raise RuntimeError(f"DynamoDB Local did not answer within {START_SECONDS:.0f} seconds")


def _ask_first(port: int) -> None:
    credential = f"Credential=local/20200101/{ENVIRONMENT['AWS_REGION']}/dynamodb/aws4_request"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    with closing(connection):
        for operation, arguments in _FIRST:
            named = {} if "TransactItems" in arguments else {"TableName": "first"}
            headers = {
                "authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0",
                "content-type": "application/x-amz-json-1.0",
                "x-amz-date": "20200101T000000Z",
                "x-amz-target": f"DynamoDB_20120810.{operation}",
            }
            connection.request("POST", "/", json.dumps(named | arguments), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != http.client.OK:
                raise RuntimeError(f"DynamoDB Local answers {operation} with {text}")


def main(owner: int) -> None:
    """Run a server until the process `owner` ends."""
    with running_dynamodb() as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        with suppress(ProcessLookupError):
            select.select([os.pidfd_open(owner)], [], [])


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The turn as a durable function of AWS Lambda, on the local runner of AWS's testing SDK.

The runner, which stands for AWS's service, is in this process; each invocation of the function is a
process of its own, which is killed. The service itself tries again, so one run is all attempts.
RETRY=at-most-once declares that semantics for the refund, without retries.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from aws_durable_execution_sdk_python import DurableContext, durable_execution
from aws_durable_execution_sdk_python.config import StepConfig, StepSemantics
from aws_durable_execution_sdk_python.retries import RetryPresets
from scenario import ANSWER, COST, RUN, interrupt, measure, next_call, refund

SECONDS = 60
INTERRUPTED = 6  # the status of a turn that failed because a step was interrupted
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "us-west-2",
}
EFFECT = (
    StepConfig(RetryPresets.none(), StepSemantics.AT_MOST_ONCE_PER_RETRY)
    if os.environ["RETRY"] == "at-most-once"
    else None
)


@durable_execution
def shop(event: str, context: DurableContext) -> str:
    """The turn: model calls and tools are steps."""
    done: set[str] = set()
    while True:
        call = context.step(lambda _: next_call(done), name="model")
        if call is None:
            return ANSWER
        number, tool, arguments = call
        if tool == "refund_order":
            reason = json.loads(arguments)["reason"]
            key = f"{event}:{number}"
            context.step(lambda _: refund(reason, key), tool, EFFECT)  # noqa: B023 - it runs at once
        else:
            context.step(lambda _: "order 7: paid", tool)
        done.add(tool)


def function() -> None:
    """One invocation: the event on standard input, its output on standard output."""
    context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000)
    output = shop(json.load(sys.stdin), context)
    interrupt("answered")
    json.dump(output, sys.stdout)


class Lambda(BaseHTTPRequestHandler):
    """Invoke of the Lambda API: a process each."""

    invocations = 0
    runner = ""

    def do_POST(self) -> None:
        """Invoke the function."""
        event = self.rfile.read(int(self.headers["Content-Length"]))
        Lambda.invocations += 1
        environment = {"ATTEMPT": str(Lambda.invocations), "AWS_ENDPOINT_URL_LAMBDA": self.runner}
        done = subprocess.run(
            [sys.executable, __file__, "function"],
            env=os.environ | ACCOUNT | environment,
            input=event,
            stdout=subprocess.PIPE,
            check=False,
        )
        answer = done.stdout
        self.send_response(200)
        if done.returncode:
            self.send_header("X-Amz-Function-Error", "Unhandled")
            answer = b'{"errorType": "Runtime.ExitError", "errorMessage": "exited"}'
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def service() -> int:
    """Run the turn on the local runner; the status of this process."""
    # Not imported by invocations of the function.
    from aws_durable_execution_sdk_python_testing.runner import (  # noqa: PLC0415
        WebRunner,
        WebRunnerConfig,
    )
    from aws_durable_execution_sdk_python_testing.web.server import (  # noqa: PLC0415
        WebServiceConfig,
    )

    logging.disable()
    os.environ.update(ACCOUNT)
    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Lambda)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    with ThreadingHTTPServer(("127.0.0.1", 0), Lambda) as unused:
        port = unused.server_port
    Lambda.runner = f"http://127.0.0.1:{port}"
    runner = WebRunner(
        WebRunnerConfig(
            WebServiceConfig("127.0.0.1", port),
            lambda_endpoint=f"http://127.0.0.1:{endpoint.server_port}",
            skip_time=True,
        )
    )
    runner.start()
    threading.Thread(target=runner.serve_forever, daemon=True).start()
    asked = {
        "AccountId": "123456789012", "FunctionName": "shop", "FunctionQualifier": "$LATEST",
        "ExecutionName": RUN, "ExecutionTimeoutSeconds": SECONDS, "ExecutionRetentionPeriodDays": 1,
        "InvocationId": RUN, "Input": json.dumps(RUN),
    }  # fmt: skip
    started = call_runner("/start-durable-execution", json.dumps(asked).encode())
    name = urllib.parse.quote(started["ExecutionArn"], safe="")
    found = {"Status": "RUNNING"}
    began = time.monotonic()
    while found["Status"] == "RUNNING" and time.monotonic() < began + SECONDS:
        time.sleep(0.1)
        found = call_runner(f"/2025-12-01/durable-executions/{name}")
    if found["Status"] == "SUCCEEDED":
        return 0 if json.loads(found["Result"]) == ANSWER else 4
    return INTERRUPTED if "StepInterrupted" in json.dumps(found.get("Error", "")) else 3


def call_runner(path: str, body: bytes | None = None) -> dict[str, str]:
    """Call the runner."""
    request = urllib.request.Request(
        Lambda.runner + path, body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


async def cost() -> None:
    """Turns that are measured: service and function in one process, state in memory."""
    from aws_durable_execution_sdk_python_testing.runner import (  # noqa: PLC0415 - as above
        DurableFunctionTestRunner,
    )

    logging.disable()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))
    with DurableFunctionTestRunner(shop) as runner:

        async def turn(name: str) -> str:
            given = {"input": json.dumps(name), "execution_name": name}
            return json.loads((await asyncio.to_thread(runner.run, **given)).result)

        await measure(turn)


if __name__ == "__main__":
    if COST:
        asyncio.run(cost())
    elif sys.argv[1:] == ["function"]:
        function()
    else:
        status = service()
        sys.stderr.flush()
        os._exit(status)  # threads of the runner may wait for invocations

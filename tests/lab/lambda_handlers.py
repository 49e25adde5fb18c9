"""Handlers, run by AWS's client in environments of the local Lambda."""

import os
import time
from pathlib import Path
from typing import Any

_started = time.time()
_calls = 0


def echo(event: Any, context: Any) -> Any:
    global _calls  # noqa: PLW0603 - an environment's state is what is tested
    _calls += 1
    return {
        "event": event,
        "request": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "left": context.get_remaining_time_in_millis(),
        "memory": context.memory_limit_in_mb,
        "trace": os.environ.get("_X_AMZN_TRACE_ID", ""),
        "calls": _calls,
        "pid": os.getpid(),
        "kind": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
    }


def work(event: Any, context: Any) -> Any:
    """Does what the event says."""
    match event["do"]:
        case "raise":
            raise KeyError("nothing is there")
        case "sleep":
            time.sleep(event["seconds"])
        case "exit":
            os._exit(event["status"])
        case "grow":
            kept = b"x" * (event["megabytes"] << 20)
            time.sleep(20)
            return len(kept)
        case "answer":
            return "x" * event["characters"]
        case "measure":
            return len(event["filling"])
        case "http":
            return {
                "statusCode": 201,
                "headers": {"content-type": "text/plain", "X-Kind": "plain"},
                "cookies": ["a=1; Secure", "b=2"],
                "body": "made",
            }
    return echo(event, context)


if slow := os.environ.get("SLOW_ONCE"):  # the first initialisation takes too long
    marker = Path(slow)
    if not marker.exists():
        marker.touch()
        time.sleep(5)
if os.environ.get("FAIL_AT_INIT"):
    raise RuntimeError("no configuration")

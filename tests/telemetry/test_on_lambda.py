"""A function's traces are delivered before its environment is frozen."""

import hashlib
import json
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from seawall.lab.local_lambda.function import LocalFunction
from tests.aws_lambda.running import settings_of
from tests.servers import running_model
from tests.telemetry.receiver import attributes, receiving


async def test_a_trace_is_delivered_before_the_next_invocation(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sw_key").hexdigest()
    event = {
        "rawPath": "/v1/turns",
        "headers": {"x-api-key": "sw_key"},
        "requestContext": {
            "domainName": "x.lambda-url.eu-west-1.on.aws",
            "http": {"method": "POST"},
        },
        "body": json.dumps({"text": "Hello", "stream": True}),
    }
    with receiving() as receiver, running_model("--duration", "0.05") as model:
        config = tmp_path / "seawall.toml"
        config.write_text(f"""
[identity]
api_keys = [{{sha256 = "{digest}", tenant = "shop", subject = "me"}}]
[sessions]
path = "{tmp_path}/sessions.db"
[models.default]
base_url = "{model.url}"
model = "m"
[agents.one]
instructions = "Help."
[telemetry]
endpoint = "{receiver.url}"
export_seconds = 600
""")
        async with LocalFunction(settings_of(str(config)), log=lambda _: None) as function:
            assert b"turn.completed" in await function.invoke(json.dumps(event).encode()).whole()
            # The next invocation is fetched only after delivery.
            assert b"turn.completed" in await function.invoke(json.dumps(event).encode()).whole()
            turns = [span for span in receiver.spans if span.name == "turn"]
            assert turns, "nothing was delivered between the two"
            assert turns[0].kind == Span.SPAN_KIND_SERVER
        resource = attributes(receiver.traces[0].resource_spans[0].resource.attributes)
    assert resource["cloud.platform"] == "aws_lambda"
    assert resource["faas.name"]

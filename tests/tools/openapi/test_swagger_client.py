"""Requests are those that swagger-client builds from the same document."""

import json
import subprocess
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from seawall.tools.openapi.request import HttpRequest, build_request
from seawall.tools.openapi.styles import STYLES
from tests.parts import require
from tests.parts.tools import OPENAPI, missing_openapi
from tests.properties import number_of_examples
from tests.tools.openapi.documents import document_of, one_operation, operation_of

SCRIPT = Path(__file__).with_name("swagger_client.mjs")
TEXTS = ("a", "x y", "äß", "日本", "a/b", "?q=1&r=2#f", "100%", "a+b", '"q"', "'", "~a-b_c", "0")


def value_of(random: Random, kind: str) -> Any:
    def one() -> Any:
        return random.choice([random.choice(TEXTS), random.randint(-9, 9), random.random() < 0.5])

    if kind == "array":
        return [one() for _ in range(random.randint(1, 3))]
    if kind == "object":
        return {name: one() for name in random.sample(["k", "l", "m"], random.randint(1, 3))}
    return one()


def case(random: Random, location: str) -> dict[str, Any]:
    """A parameter and its value."""
    style = random.choice(STYLES[location])
    kind = {"deepObject": "object"}.get(style) or random.choice(["any", "array", "object"])
    if style.endswith("Delimited"):
        kind = "array"
    # Of labels that are not exploded, swagger-client has the form of 3.0.3, before its correction.
    explode = style in ("deepObject", "label") or random.random() < 0.5
    return {
        "parameter": {
            "name": random.choice(["p", "a.b", "a_b"]),
            "in": location,
            "required": True,
            "style": style,
            "explode": explode,
            "schema": {} if kind == "any" else {"type": kind},
        },
        "value": value_of(random, kind),
    }


def test_parameters_are_sent_as_another_client_sends_them() -> None:
    require(missing_openapi())
    locations, ours, lines = [], [], []
    for location in ("path", "query", "header"):
        random = Random(location)
        for _ in range(number_of_examples(80, 3_000)):
            made = case(random, location)
            name = made["parameter"]["name"]
            path = f"/things/{{{name}}}/end" if location == "path" else "/things"
            document = document_of(one_operation({"parameters": [made["parameter"]]}, path))
            operation = operation_of(document)
            (argument,) = operation.schema["properties"]
            locations.append(location)
            ours.append(build_request(operation, {argument: made["value"]}))
            lines.append(json.dumps({"spec": document.root, "parameters": {name: made["value"]}}))
    answered = subprocess.run(
        ["node", str(SCRIPT), str(OPENAPI)],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for location, our, asked, line in zip(locations, ours, lines, answered, strict=True):
        their = json.loads(line)
        assert read(our, location) == theirs(their, location), (asked, our, their)


def read(request: HttpRequest, location: str) -> Any:
    if location == "header":
        (name, value) = request.headers[1]
        return name.decode(), value.decode()
    return read_url(request.url, location)


def theirs(request: Any, location: str) -> Any:
    if location == "header":
        return next(item for item in request["headers"].items())
    return read_url(request["url"], location)


def read_url(url: str, location: str) -> Any:
    """What a server reads; the same text may be escaped more or less."""
    parts = urlsplit(url)
    if location == "path":
        return [unquote(each) for each in parts.path.split("/")]
    return parse_qsl(parts.query, keep_blank_values=True)

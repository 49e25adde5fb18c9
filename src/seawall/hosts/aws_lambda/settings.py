"""Settings of the Lambda host, from environment variables."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from seawall.errors import ConfigError

__all__ = ["LambdaSettings", "read_settings"]

_PREFIX = "SEAWALL_LAMBDA_"


class LambdaSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Variables are named SEAWALL_LAMBDA_ and the key in capitals.

    Attributes:
        stream: Whether HTTP responses are streamed: "auto" for events of a function URL (whose
            invoke mode must then be RESPONSE_STREAM), "always" (also REST APIs), or "never".
        base_path: What an API's custom domain puts before every path.
        margin_seconds: How long before the function's timeout an invocation is ended, so that the
            environment survives it.
        direct: Accept turns by direct invocation. Callers that may invoke the function can then
            act as any principal.
        queue: Accept turns from SQS. Senders to the queue can then act as any principal.
        authorizer: Trust the claims of the API's authorizer about the caller.
        metrics: Write a log line for each turn from which CloudWatch extracts metrics.
        tenant_claim: The claim that names the tenant.
        subject_claim: The claim that names the subject.
    """

    stream: Literal["auto", "always", "never"] = "auto"
    base_path: Annotated[str, Meta(pattern=r"^(/[^/?#]+)*$")] = ""
    margin_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.3
    direct: bool = False
    queue: bool = False
    authorizer: bool = False
    metrics: bool = False
    tenant_claim: Annotated[str, Meta(min_length=1)] = "tenant"
    subject_claim: Annotated[str, Meta(min_length=1)] = "sub"


def read_settings(environment: Mapping[str, str]) -> LambdaSettings:
    """Read the settings from environment variables.

    Raises:
        ConfigError: A variable is unknown, or its value invalid.
    """
    found = {
        name.removeprefix(_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(_PREFIX)
    }
    try:
        return msgspec.convert(found, LambdaSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"environment: {_PREFIX}*: {error}") from error

"""What can be set of the Lambda host: by environment variables, as functions are configured."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from seawall.errors import ConfigError

__all__ = ["LambdaSettings", "read_settings"]

_PREFIX = "SEAWALL_LAMBDA_"


class LambdaSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Variables are named SEAWALL_LAMBDA_ and the key in capitals.

    stream: whether HTTP answers are streamed: "auto" where the event comes from a function URL
    (whose invoke mode must then be RESPONSE_STREAM), "always" (REST APIs that stream as well), or
    "never".
    base_path: what an API's custom domain puts before every path.
    margin_seconds: how long before the function's timeout an invocation is ended by us, so that
    the environment outlives it.
    direct: whether a turn may be asked for by a direct invoke. queue: whether by SQS. Whoever may
    invoke the function, or write to its queue, can then act as any principal.
    authorizer: whether the claims of the API's authorizer say who is asking; tenant_claim,
    subject_claim: which of them.
    metrics: whether each turn leaves a line in the log from which CloudWatch makes metrics.
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
    """The settings that the environment's variables make.

    Raises:
        ConfigError: one of them is unknown, or its value wrong.
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

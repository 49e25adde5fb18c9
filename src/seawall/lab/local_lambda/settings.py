"""What can be set of a function on the local Lambda; the defaults are AWS's."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["PAYLOAD_BYTES", "FunctionSettings"]

PAYLOAD_BYTES = 6 * 1024 * 1024
_Count = Annotated[int, Meta(ge=1)]


class FunctionSettings(Struct, frozen=True, kw_only=True):
    """A function: what runs in its environments, and within which limits.

    command: what an environment runs. handler: its `_HANDLER`. folder: where it runs.
    timeout_seconds: of an invocation. init_seconds: until an environment must ask for its first
    invocation; then it is started again, within the invocation and its time.
    max_concurrency: invocations in flight in one environment; more than 1 is a managed instance,
    which is never frozen and is not started by an arrival.
    snapstart: environments are stopped when initialised and continued when needed.
    provisioned: environments that are started ahead and kept.
    concurrency: the most environments at once. scaling_per_10s: the most that are added in 10 s.
    idle_seconds: until an unused environment is reclaimed. shutdown_seconds: how long it is given
    after SIGTERM; 0: it is killed, as AWS does where no extension is registered.
    cpu_group: control groups with this name and a number limit an environment to the processors
    that its memory buys, 1,769 MB a processor; empty: they are not limited.
    request_bytes, response_bytes, streamed_bytes: the most of a payload. AWS's own check of an
    answer leaves 100 bytes more than it says.
    bandwidth: bytes a second of a streamed answer after its first `response_bytes`.

    Sources (docs.aws.amazon.com/lambda/latest/dg): gettingstarted-limits, lambda-concurrency,
    lambda-runtime-environment, configuration-response-streaming, lambda-managed-instances-*.
    """

    command: tuple[str, ...]
    handler: str
    name: str = "local"
    folder: str = "."
    environment: dict[str, str] = {}
    memory_mb: Annotated[int, Meta(ge=128, le=32_768)] = 512
    timeout_seconds: Annotated[float, Meta(gt=0, le=900)] = 30.0
    init_seconds: Annotated[float, Meta(gt=0)] = 10.0
    max_concurrency: Annotated[int, Meta(ge=1, le=1_600)] = 1
    snapstart: bool = False
    provisioned: Annotated[int, Meta(ge=0)] = 0
    concurrency: _Count = 1_000
    scaling_per_10s: _Count = 1_000
    idle_seconds: Annotated[float, Meta(gt=0)] = 300.0
    shutdown_seconds: Annotated[float, Meta(ge=0)] = 0.0
    cpu_group: str = ""
    request_bytes: _Count = PAYLOAD_BYTES
    response_bytes: _Count = PAYLOAD_BYTES + 100
    streamed_bytes: _Count = 200 * 1024 * 1024
    bandwidth: _Count = 2 * 1024 * 1024
    invoke_mode: Literal["BUFFERED", "RESPONSE_STREAM"] = "RESPONSE_STREAM"
    log_format: Literal["Text", "JSON"] = "JSON"
    log_level: str = "INFO"

    @property
    def managed(self) -> bool:
        """Whether its environments are those of managed instances."""
        return self.max_concurrency > 1

    @property
    def processors(self) -> float:
        """What its memory buys (lambda/latest/dg, configuration-memory)."""
        return self.memory_mb / 1_769

    @property
    def arn(self) -> str:
        """Its name among AWS's resources."""
        return f"arn:aws:lambda:us-east-1:000000000000:function:{self.name}"

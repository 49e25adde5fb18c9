"""Settings of a function on the local Lambda; the defaults are AWS's."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["PAYLOAD_BYTES", "FunctionSettings"]

PAYLOAD_BYTES = 6 * 1024 * 1024
_Count = Annotated[int, Meta(ge=1)]


class FunctionSettings(Struct, frozen=True, kw_only=True):
    """A function and its limits.

    Attributes:
        command: Of an environment's process.
        handler: Its `_HANDLER`.
        name: Of the function.
        folder: Working directory.
        environment: Further environment variables.
        memory_mb: Limit of memory.
        timeout_seconds: Of an invocation.
        init_seconds: Of an initialisation; then it is retried within the invocation's timeout.
        max_concurrency: Invocations in flight in one environment; more than 1 is a managed
            instance, which is never frozen and not started by an invocation.
        snapstart: Stop environments when they are initialised and continue them when needed.
        provisioned: Environments that are started ahead and kept.
        concurrency: Environments at most.
        scaling_per_10s: Environments added within 10 s at most.
        idle_seconds: Until an unused environment is reclaimed.
        shutdown_seconds: From SIGTERM to SIGKILL; 0 sends SIGKILL at once, as AWS does if no
            extension is registered.
        cpu_group: Name of the control groups that limit an environment to the processors of its
            memory, 1,769 MB each; empty for no limit.
        request_bytes: Limit of a request's payload.
        response_bytes: Limit of a response; AWS accepts 100 bytes more than documented.
        streamed_bytes: Limit of a streamed response.
        bandwidth: Bytes a second of a streamed response after its first `response_bytes`.
        invoke_mode: Of the function URL.
        log_format: As the environment sees it.
        log_level: As the environment sees it.

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
        """Whether its environments are managed instances."""
        return self.max_concurrency > 1

    @property
    def processors(self) -> float:
        """Processors of its memory (lambda/latest/dg, configuration-memory)."""
        return self.memory_mb / 1_769

    @property
    def arn(self) -> str:
        """Amazon Resource Name."""
        return f"arn:aws:lambda:us-east-1:000000000000:function:{self.name}"

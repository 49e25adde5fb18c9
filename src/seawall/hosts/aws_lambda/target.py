"""What a function is: its settings; its target: orchestrator, ASGI application or plain handler."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from seawall.errors import ConfigError
from seawall.hosts.aws_lambda.http_events import AsgiApp

if TYPE_CHECKING:
    from seawall.hosts.aws_lambda.lifespan import Lifespan

__all__ = ["Handler", "LambdaSettings", "Target", "load_target", "read_settings"]

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
        roles_claim: The claim that has its roles.
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
    roles_claim: Annotated[str, Meta(min_length=1)] = "roles"


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


Handler = Callable[[Any, Any], Any]


class Target(Struct):
    """The target of a function: answers invocations.

    Attributes:
        app: Answers HTTP events.
        lifespan: Of the app, if it is not an orchestrator's.
        orchestrator: Answers turns that arrive without HTTP.
        handler: Answers every event; called with event and context as AWS's runtimes do.
    """

    app: AsgiApp | None = None
    lifespan: "Lifespan | None" = None
    orchestrator: Any = None  # a seawall.Orchestrator, which plain handlers do not import
    handler: Handler | None = None

    async def start(self, concurrency: int = 1) -> None:
        """Open the target before the first invocation.

        Args:
            concurrency: Invocations in flight at most.
        """
        if self.orchestrator is not None:
            await self.orchestrator.open(cold_start=True, concurrency=concurrency, stateless=True)
        elif self.lifespan is not None:
            await self.lifespan.start()

    async def stop(self) -> None:
        """Close the target."""
        if self.orchestrator is not None:
            await self.orchestrator.close()
        elif self.lifespan is not None:
            await self.lifespan.stop()

    async def finish_background(self, seconds: float) -> None:
        """Finish background work before the environment is frozen."""
        if self.orchestrator is not None:
            await self.orchestrator.engine.drain(seconds)

    async def before_snapshot(self) -> None:
        """Release what does not survive a snapshot: connections, credentials, threads."""
        if self.orchestrator is not None:
            await self.orchestrator.close()
        await _run_hooks("get_before_snapshot", last_first=True)

    async def after_restore(self, concurrency: int = 1) -> None:
        """Reopen the target after a restore. See `start`."""
        if self.orchestrator is not None:
            await self.orchestrator.open(cold_start=True, concurrency=concurrency, stateless=True)
        await _run_hooks("get_after_restore", last_first=False)


def load_target(name: str, environment: Mapping[str, str]) -> Target:
    """Load the target of a function.

    Args:
        name: The handler: FILE.toml, MODULE:NAME, or MODULE.NAME as AWS writes it.
        environment: Of the function.

    Raises:
        ConfigError: The handler is none of these.
    """
    folder = environment.get("LAMBDA_TASK_ROOT") or str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if name.endswith(".toml"):
        from seawall.orchestrator import Orchestrator  # noqa: PLC0415 - only for orchestrators

        path = Path(name) if Path(name).is_absolute() else Path(folder) / name
        return _of_orchestrator(Orchestrator.from_config(path))
    module, _, attribute = name.replace("/", ".").rpartition(":" if ":" in name else ".")
    if not module or not attribute:
        raise ConfigError(f"the handler {name!r} is neither FILE.toml nor MODULE:NAME")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise ConfigError(f"the module {module!r} has no {attribute!r}") from error
    if _is_orchestrator(found):
        return _of_orchestrator(found)
    if not callable(found):
        raise ConfigError(f"the handler {name!r} is not callable")
    if _arguments(found) == 2:
        return Target(handler=found)
    from seawall.hosts.aws_lambda.lifespan import Lifespan  # noqa: PLC0415 - only for applications

    return Target(app=found, lifespan=Lifespan(found))


def _of_orchestrator(orchestrator: Any) -> Target:  # noqa: ANN401 - see Target
    from seawall.hosts.http.app import HttpApplication  # noqa: PLC0415 - only for orchestrators

    return Target(
        app=HttpApplication(orchestrator, manage_lifespan=False), orchestrator=orchestrator
    )


def _is_orchestrator(found: object) -> bool:
    module = sys.modules.get("seawall.orchestrator")
    return module is not None and isinstance(found, module.Orchestrator)


def _arguments(found: Callable[..., Any]) -> int:
    """The number of required positional arguments."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return 3
    return sum(
        each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        and each.default is each.empty
        for each in parameters
    )


async def _run_hooks(getter: str, *, last_first: bool) -> None:
    """Run the hooks registered with AWS's library, if it was imported."""
    module = sys.modules.get("snapshot_restore_py")
    hooks = list(getattr(module, getter)()) if module is not None else []
    for function, arguments, keywords in reversed(hooks) if last_first else hooks:
        done = function(*arguments, **keywords)
        if inspect.isawaitable(done):
            await done

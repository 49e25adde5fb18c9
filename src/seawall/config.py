"""Configuration: `seawall.toml` and environment variables to typed, validated settings.

Every error names file, line and key, or the environment variable. A value is overridden by the
variable `SEAWALL_` plus the dotted path with `__` for the dots, such as SEAWALL_SERVER__PORT=9000;
it is read as TOML, or else as plain text.

Relative paths in a file start at its folder, those in the environment at the working directory.
"""

import logging
import math
import os
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from seawall.agents import AgentLimits
from seawall.errors import ConfigError, did_you_mean
from seawall.identity.settings import IdentitySettings
from seawall.intents import NO_INTENT
from seawall.settings import (
    AdmissionSettings,
    AnswerCacheSettings,
    AttachmentSettings,
    BlobSettings,
    BudgetSettings,
    CacheLimits,
    ConsoleSettings,
    EffectSettings,
    HandoverSettings,
    McpServerSettings,
    MemorySettings,
    ModelSettings,
    OutputSettings,
    QuotaSettings,
    SessionSettings,
    StageLimits,
    TelemetrySettings,
    budget_faults,
    invalid_setting,
    model_faults,
)

if TYPE_CHECKING:
    from seawall.knowledge.settings import KnowledgeSettings
    from seawall.tools.settings import SourceSettings, TenantTables

__all__ = [
    "PARSED_SUFFIX",
    "AgentSettings",
    "CorsSettings",
    "IntentSettings",
    "RoutingSettings",
    "ServerSettings",
    "Settings",
    "ToolsetSettings",
    "load_settings",
    "parse_settings",
    "parsed_ahead",
]

T = TypeVar("T", bound=Struct)

# Keys that were renamed: the old one, with "*" for a NAME, and the new name of its last part.
# The old names are accepted for one release, with a warning; docs/configuration.md lists them.
RENAMED_KEYS = {
    "server.hold_seconds": "flush_delay_seconds",
    "server.rehearse": "warm_up",
    "server.leave_seconds": "shutdown_delay_seconds",
    "admission.pass_seconds": "loop_target_seconds",
    "admission.at_least": "min_in_flight",
    "sessions.resume_seconds": "orphan_scan_seconds",
    "models.*.connections": "max_connections",
    "models.*.warm": "warm_connections",
    "models.*.resilience.extra_share": "retry_budget",
    "models.*.resilience.wait_seconds": "permit_wait_seconds",
}

PARSED_SUFFIX = ".parsed.json"
"""Of the file beside a configuration that has it parsed; see `parsed_ahead`."""

_log = logging.getLogger("seawall.config")
_OTHER_SECTIONS = ("knowledge", "tools")
_TOML_BEGINS = tuple("\"'[{+-0123456789tfin \t")  # the first characters of values
_LONGEST_SECONDS = 86_400.0
_MOST = 1 << 40


_HEADER_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z"
_ORIGIN = r"[a-z][a-z0-9+.-]*://[a-z0-9_.-]+(?::\d{1,5})?\Z|[a-z]+://\[[0-9a-f:]+\](?::\d{1,5})?\Z"


class CorsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CORS: which pages of other origins may call the API from a browser.

    Attributes:
        origins: Origins as browsers send them, such as `https://shop.example`; "*" for all.
        methods: Methods that such a page may use.
        headers: Headers that it may send; "*" for all that it requests.
        expose: Headers of responses that it may read.
        credentials: Whether a browser may send cookies; not with the origin "*".
        max_age_seconds: How long a browser may cache the answer to a preflight request.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ("GET", "POST", "PATCH", "DELETE")
    headers: tuple[str, ...] = (
        "accept",
        "authorization",
        "cache-control",
        "content-type",
        "idempotency-key",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "seawall-session",
        "traceparent",
        "tracestate",
        "x-api-key",
        "x-request-id",
        # OpenAI's own client for browsers
        "openai-organization",
        "openai-project",
        "user-agent",
        "x-stainless-arch",
        "x-stainless-async",
        "x-stainless-helper-method",
        "x-stainless-lang",
        "x-stainless-os",
        "x-stainless-package-version",
        "x-stainless-poll-helper",
        "x-stainless-retry-count",
        "x-stainless-runtime",
        "x-stainless-runtime-version",
        "x-stainless-timeout",
    )
    expose: tuple[str, ...] = (
        "location",
        "mcp-session-id",
        "retry-after",
        "seawall-session",
        "server-timing",
        "www-authenticate",
        "x-request-id",
    )
    credentials: bool = False
    max_age_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 600

    def __post_init__(self) -> None:
        """Refuse origins that no browser sends, and "*" together with credentials."""
        if not self.origins:
            raise ValueError("origins: name at least one, or leave out [server.cors]")
        for origin in self.origins:
            if origin != "*" and not re.match(_ORIGIN, origin):
                raise ValueError(
                    f"origins: {origin!r} is not an origin as browsers send it: scheme, host in "
                    "lower case and a port where it is not the usual one, without a path"
                )
        if self.credentials and "*" in self.origins:
            raise ValueError('credentials: cannot be true with the origin "*": list the origins')
        for name in (*self.methods, *self.headers, *self.expose):
            if not re.match(_HEADER_NAME, name):
                raise ValueError(f"{name!r} is not the name of a header or method")


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP server, and limits on what clients may send.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        workers: Processes; 0 for one for each available processor.
        max_body_bytes: Size of a request body.
        max_header_bytes: Size of a request head, with trailers and chunk extensions.
        max_text_characters: Length of a message.
        max_messages: Messages of a chat completion request.
        max_connections: Connections of one worker; beyond it the longest idle are closed.
        max_unread_bytes: Bytes of incomplete requests, on all connections of a worker together.
        header_seconds: Time limit for receiving a request's head.
        body_seconds: Time limit for receiving its body.
        stall_seconds: How long a client may leave a response unread before it is disconnected.
        warm_up: Whether a process runs warm-up turns before it reports that it is ready.
        shutdown_delay_seconds: How long turns are still accepted after SIGTERM, while `/readyz`
            reports that the server is not ready.
        drain_seconds: How long turns in flight may take to finish after that.
        flush_delay_seconds: The longest delay of text after a stream's first piece, so that it is
            read and sent in fewer, larger pieces; more than 0.048 only while the event loop has
            no time and turns wait for their start; 0 for no delay.
        frozen_seconds: With several workers, a worker whose event loop is blocked for so long is
            killed and replaced; 0 for never, and less than 2 counts as 2.
        access_log: Whether each request is logged.
        cors: Cross-origin access; None for none.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 0
    max_body_bytes: int = 262_144
    max_header_bytes: int = 32_768
    max_text_characters: int = 16_384
    max_messages: int = 256
    max_connections: int = 16_384
    max_unread_bytes: int = 67_108_864
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    stall_seconds: float = 20.0
    warm_up: bool = True
    shutdown_delay_seconds: float = 0.0
    drain_seconds: float = 30.0
    flush_delay_seconds: float = 0.5
    frozen_seconds: float = 20.0
    access_log: bool = False
    cors: CorsSettings | None = None


class ToolsetSettings(Struct, frozen=True):
    """A set of tools, made by a factory at start.

    Attributes:
        factory: `module:function`.
        arguments: The other keys of the table; arguments of the factory.
        from_environment: Those of them that an environment variable has set.
    """

    factory: str
    arguments: dict[str, Any]
    from_environment: frozenset[str] = frozenset()


class IntentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """An intent.

    Attributes:
        description: What it is, for a model that is asked.
        agent: The agent that answers it.
        examples: Messages, for training the classifier.
        patterns: Regular expressions that decide it without a classifier.
    """

    description: str = ""
    agent: str = ""
    examples: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class AgentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent.

    Attributes:
        instructions: The system prompt.
        description: What it is for; not sent to its model. Agents of `[mcp]` need one.
        model: Name of a table of `[models]`, or of a model that was registered in code.
        tools: Names of the tools that it may call.
        handoffs: Names of the agents that it may hand over to.
        temperature: Of the model, 0 to 2; None for the provider's default.
        limits: Limits of one turn.
        output: Schema of its answer; None for plain text.
        cache: Reuse of its answers; None for no reuse.
        reasoning: Whether clients of the turns API get the model's reasoning.
        handover: Whether it may hand conversations over to a person; see `[handover]`.
        compaction: Whether what leaves the history window is summarised.
        summary_model: Name of the model that writes summaries; empty for the agent's.
        summary_tokens: Of a summary, at most.
        client_tools: Whether clients may offer tools of their own, which they run themselves.
        client_instructions: What becomes of system and developer messages of clients: "ignore",
            "append" them to the instructions, or "refuse" the request.
        memory: Whether it is shown what is remembered of the user, and may remember more; see
            `[memory]`.
    """

    instructions: str
    description: str = ""
    model: str = "default"
    tools: tuple[str, ...] = ()
    handoffs: tuple[str, ...] = ()
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    limits: AgentLimits = AgentLimits()
    output: OutputSettings | None = None
    cache: AnswerCacheSettings | None = None
    reasoning: bool = False
    handover: bool = False
    compaction: Literal["none", "summary"] = "none"
    summary_model: str = ""
    summary_tokens: Annotated[int, Meta(ge=100, le=8_000)] = 1_000
    client_tools: bool = False
    client_instructions: Literal["ignore", "append", "refuse"] = "ignore"
    memory: bool = False


class RoutingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How an agent is chosen for a turn.

    Attributes:
        default_agent: The agent that answers if nothing else decides; required for several agents.
        sticky: How an agent keeps the conversation it has.
        intent_model: The model that is asked if the classifier is not confident; empty for none.
        intent_threshold: The confidence from which the classifier decides, 0 to 1; None for the
            calibrated one.
        classifier: "embeddings" also runs an embedding model, some milliseconds a message, where
            n-grams are not confident.
        embedding_model: Folder of its weights, or of a model converted for onnxruntime; empty for
            the installed package.
        classifier_cache: File that keeps the trained classifier, for all processes; empty for none.
    """

    default_agent: str = ""
    sticky: Literal["always", "until-confident", "never"] = "until-confident"
    intent_model: str = ""
    intent_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    classifier: Literal["ngrams", "embeddings"] = "ngrams"
    embedding_model: str = ""
    classifier_cache: str = ""


class Settings(Struct, frozen=True, kw_only=True):
    """The whole configuration. There is an attribute for each section of the file.

    Attributes:
        tools: Tables `[tools.NAME]` with a factory.
        sources: Tables `[tools.NAME]` of tools that live elsewhere.
        knowledge: Tables `[knowledge.NAME]`: folders of documents that agents search.
        source: The file, for error messages; empty if there is none.
        folder: Where relative paths start; empty for the working directory.
    """

    source: str = ""
    folder: str = ""
    server: ServerSettings = ServerSettings()
    turn: StageLimits = StageLimits()
    admission: AdmissionSettings = AdmissionSettings()
    identity: IdentitySettings = IdentitySettings()
    sessions: SessionSettings = SessionSettings()
    caches: CacheLimits = CacheLimits()
    routing: RoutingSettings = RoutingSettings()
    effects: EffectSettings = EffectSettings()
    handover: HandoverSettings = HandoverSettings()
    memory: MemorySettings = MemorySettings()
    mcp: McpServerSettings | None = None
    console: ConsoleSettings = ConsoleSettings()
    blobs: BlobSettings | None = None
    attachments: AttachmentSettings = AttachmentSettings()
    budgets: BudgetSettings = BudgetSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    quotas: dict[str, QuotaSettings] = field(default_factory=dict)
    models: dict[str, ModelSettings] = field(default_factory=dict)
    tools: dict[str, ToolsetSettings] = field(default_factory=dict)
    sources: "dict[str, SourceSettings]" = field(default_factory=dict)
    knowledge: "dict[str, KnowledgeSettings]" = field(default_factory=dict)
    tenants: "dict[str, TenantTables]" = field(default_factory=dict)
    intents: dict[str, IntentSettings] = field(default_factory=dict)
    agents: dict[str, AgentSettings] = field(default_factory=dict)

    @property
    def has_console(self) -> bool:
        """Whether the console is served; see `ConsoleSettings`."""
        enabled = self.console.enabled
        return self.identity.anonymous if enabled is None else enabled


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration file.

    Args:
        path: The file.
        environment: Variables whose `SEAWALL_...` names override values.

    Raises:
        ConfigError: The file cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError) and path.name == "seawall.toml":
            hint = "; create a project with: seawall init"
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    document, source = _read(text, str(path), environment, parsed_ahead(path, text))
    return _settings_of(document, source, name=str(path), folder=str(path.parent))


def parse_settings(
    text: str,
    *,
    name: str = "seawall.toml",
    environment: Mapping[str, str] | None = None,
    folder: str = "",
) -> Settings:
    """Validate the text of a configuration file.

    Args:
        text: The content of the file.
        name: Its name in error messages.
        environment: Variables whose `SEAWALL_...` names override values; None for none.
        folder: Where relative paths of the file start; empty for the working directory.

    Raises:
        ConfigError: Something is wrong; the message names file, line and key.
    """
    document, source = _read(text, name, environment or {})
    return _settings_of(document, source, name=name, folder=folder)


def _settings_of(
    document: dict[str, Any], source: "_Source", *, name: str, folder: str
) -> Settings:
    """The settings in a document; see `parse_settings`."""
    sections = _sections(document, source)
    settings = Settings(source=name, folder=folder, **sections)
    for key, model in settings.models.items():
        if wrong := invalid_setting(model, document["models"][key]):
            raise source.error(("models", key, wrong[0]), wrong[1])
    for path, message in _server_faults(settings.server):
        raise source.error(path, message)
    _check_references(settings, source)
    return _resolved(settings, source)


def _read(
    text: str,
    name: str,
    environment: Mapping[str, str],
    document: dict[str, Any] | None = None,
) -> "tuple[dict[str, Any], _Source]":
    """The document, parsed unless it was before, and overridden by the environment."""
    try:
        if document is None:
            document = _parsed(text)
        source = _Source(name, text, _copied(document))
    except RecursionError:
        raise ConfigError(f"{name}: is not TOML: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits is one, too
        raise ConfigError(f"{name}: is not TOML: {error}") from error
    _rename_old_keys(document, source)
    for variable, value in sorted(environment.items()):
        if variable.startswith("SEAWALL_"):
            if "__" in variable:
                _override(document, variable, value, source, environment)
            else:
                _warn_single_underscore(variable)
    for path in _not_finite(document):
        raise source.error(path, "must be a finite number")
    return document, source


def parsed_ahead(path: Path, text: str) -> dict[str, Any] | None:
    """The document of a TOML file that was parsed when its function's package was built.

    Reading it takes a cold start a fraction of the time of parsing, and the parser is not imported.
    It has the text that it was made of, and counts for no other; whatever is wrong with it, the
    text is parsed. `seawall.ship.parsed_toml` writes it.

    Args:
        path: The TOML file.
        text: Its content.
    """
    try:
        written, document = msgspec.json.decode(Path(f"{path}{PARSED_SUFFIX}").read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return document if written == text and isinstance(document, dict) else None


def _parsed(text: str) -> dict[str, Any]:
    """The document of TOML.

    Raises:
        ValueError: It is not TOML.
        RecursionError: It is nested too deeply.
    """
    import tomllib  # noqa: PLC0415 - a function's package is parsed ahead

    return tomllib.loads(text)


def _copied(document: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tables, including those in arrays; parsing again takes twenty times as long."""

    def copy(value: object) -> object:
        if isinstance(value, dict):
            return {key: copy(each) for key, each in value.items()}
        return [copy(each) for each in value] if isinstance(value, list) else value

    return {key: copy(each) for key, each in document.items()}


def _sections(document: dict[str, Any], source: "_Source") -> dict[str, Any]:
    """Each section, converted to its settings."""
    sections: dict[str, Any] = {}
    for section, value in document.items():
        if section in _plain_sections:
            sections[section] = source.convert(value, _plain_sections[section], (section,))
        elif section in _named_sections:
            sections[section] = {
                key: source.convert(entry, _named_sections[section], (section, key))
                for key, entry in source.table(value, (section,)).items()
            }
        elif section == "knowledge":
            sections[section] = _knowledge(source.table(value, (section,)), source)
        elif section == "tools":
            sections |= _tools(source.table(value, (section,)), source)
        elif section == "tenants":
            from seawall.tools.settings import TenantTables  # noqa: PLC0415 - if there are

            tenants = source.table(value, (section,))
            for key, entry in tenants.items():
                path = (section, key, "tools")
                own = source.table(source.table(entry, path[:2]).get("tools", {}), path)
                for name, table in own.items():
                    _check_auth(source.table(table, (*path, name)), source, (*path, name))
            sections[section] = {
                key: source.convert(entry, TenantTables, (section, key))
                for key, entry in tenants.items()
            }
        else:
            known = sorted([*_plain_sections, *_named_sections, "knowledge", "tools", "tenants"])
            message = f"unknown section{did_you_mean(section, known)}; known: {', '.join(known)}"
            raise source.error((section,), message)
    return sections


def _not_finite(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of numbers that are NaN or infinite, which TOML allows."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _not_finite(each, (*path, str(key)))
    elif isinstance(value, list):
        for each in value:
            yield from _not_finite(each, path)


def _server_faults(server: ServerSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Numbers out of range, as paths with messages."""
    most = {"port": 65_535, "workers": 1_024}
    for field_ in msgspec.structs.fields(server):
        name = field_.encode_name
        value = getattr(server, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low = 1 if name.startswith("max_") else 0
        high = most.get(name, _LONGEST_SECONDS if isinstance(value, float) else _MOST)
        if not low <= value <= high:
            yield ("server", name), f"must be from {low} to {high:g}, not {value:g}"


def _resolved(settings: Settings, source: "_Source") -> Settings:
    """The settings with file paths that are relative to the configuration's folder."""
    if settings.folder in ("", "."):
        return settings

    def at(value: str, *path: str) -> str:
        return value if not value or source.is_set(path) else str(Path(settings.folder, value))

    replace = msgspec.structs.replace
    jwt = settings.identity.jwt
    if jwt is not None and jwt.jwks_file:
        jwt = replace(jwt, jwks_file=at(jwt.jwks_file, "identity", "jwt", "jwks_file"))
    if jwt is not None and jwt.ca_file:
        jwt = replace(jwt, ca_file=at(jwt.ca_file, "identity", "jwt", "ca_file"))
    routing, blobs = settings.routing, settings.blobs
    if blobs is not None:
        blobs = replace(
            blobs,
            path=at(blobs.path, "blobs", "path"),
            ca_file=at(blobs.ca_file, "blobs", "ca_file"),
        )
    surge = settings.console.surge
    if surge is not None:
        surge = replace(surge, token_file=at(surge.token_file, "console", "surge", "token_file"))
    return replace(
        settings,
        blobs=blobs,
        identity=replace(settings.identity, jwt=jwt),
        sessions=replace(
            settings.sessions,
            path=at(settings.sessions.path, "sessions", "path"),
            ca_file=at(settings.sessions.ca_file, "sessions", "ca_file"),
        ),
        console=replace(
            settings.console,
            reports=at(settings.console.reports, "console", "reports"),
            surge=surge,
        ),
        telemetry=replace(
            settings.telemetry, ca_file=at(settings.telemetry.ca_file, "telemetry", "ca_file")
        ),
        routing=replace(
            routing,
            embedding_model=at(routing.embedding_model, "routing", "embedding_model"),
            classifier_cache=at(routing.classifier_cache, "routing", "classifier_cache"),
        ),
        handover=replace(
            settings.handover,
            secret_file=at(settings.handover.secret_file, "handover", "secret_file"),
            ca_file=at(settings.handover.ca_file, "handover", "ca_file"),
        ),
        models={
            name: replace(
                each,
                api_key_file=at(each.api_key_file, "models", name, "api_key_file"),
                ca_file=at(each.ca_file, "models", name, "ca_file"),
                path=at(each.path, "models", name, "path"),
            )
            for name, each in settings.models.items()
        },
        knowledge={
            name: replace(
                each,
                folder=at(each.folder, "knowledge", name, "folder"),
                index=at(each.index, "knowledge", name, "index"),
                embedding_model=at(each.embedding_model, "knowledge", name, "embedding_model"),
            )
            for name, each in settings.knowledge.items()
        },
        agents={
            name: each
            if each.output is None
            else replace(
                each,
                output=replace(
                    each.output,
                    schema_file=at(
                        each.output.schema_file, "agents", name, "output", "schema_file"
                    ),
                ),
            )
            for name, each in settings.agents.items()
        },
    )


_plain_sections: dict[str, type[Struct]] = {
    "server": ServerSettings,
    "turn": StageLimits,
    "admission": AdmissionSettings,
    "identity": IdentitySettings,
    "sessions": SessionSettings,
    "caches": CacheLimits,
    "routing": RoutingSettings,
    "effects": EffectSettings,
    "handover": HandoverSettings,
    "memory": MemorySettings,
    "mcp": McpServerSettings,
    "console": ConsoleSettings,
    "blobs": BlobSettings,
    "attachments": AttachmentSettings,
    "budgets": BudgetSettings,
    "telemetry": TelemetrySettings,
}
_named_sections: dict[str, type[Struct]] = {
    "models": ModelSettings,
    "quotas": QuotaSettings,
    "intents": IntentSettings,
    "agents": AgentSettings,
}


class _Source:
    """Where values come from, for error messages: lines of the text, or environment variables."""

    def __init__(self, name: str, text: str, document: dict[str, Any]) -> None:
        self._name = name
        self._lines = text.splitlines()
        self._document = document
        self.overridden: dict[tuple[str, ...], str] = {}
        self.renamed: dict[tuple[str, ...], tuple[str, ...]] = {}  # in the file: new to old path

    def error(self, path: tuple[str, ...], message: str) -> ConfigError:
        """An error at a key, with file and line, or the environment variable."""
        key = ".".join(path)
        if variable := self._variable(path):
            return ConfigError(f"{variable} (environment): {key}: {message}")
        line = _line_of(self._lines, self.renamed.get(path, path))
        return ConfigError(f"{self._name}:{line}: {key}: {message}")

    def is_set(self, path: tuple[str, ...]) -> bool:
        """Whether an environment variable has set the key, or a table around it."""
        return any(path[: len(each)] == each for each in self.overridden)

    def _variable(self, path: tuple[str, ...]) -> str:
        """The environment variable that caused an error at a key; empty if the file did.

        It has set the key, or created the table that the key is missing from.
        """
        for size in range(len(path), 0, -1):
            if found := self.overridden.get(path[:size]):
                return found
        for size in range(len(path), 0, -1):
            if self._in_file(path[:size]):
                return ""
            for each, variable in self.overridden.items():
                if each[:size] == path[:size]:
                    return variable
        return ""

    def _in_file(self, path: tuple[str, ...]) -> bool:
        found: object = self._document
        for part in path:
            if not isinstance(found, dict) or part not in found:
                return False
            found = found[part]
        return True

    def table(self, value: object, path: tuple[str, ...]) -> dict[str, Any]:
        """The value, if it is a table."""
        if not isinstance(value, dict):
            raise self.error(path, "must be a table")
        return value

    def convert(self, value: object, kind: type[T], path: tuple[str, ...]) -> T:
        """Convert a table to settings."""
        try:
            return msgspec.convert(self.table(value, path), kind)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            inner = tuple(re.findall(r"\.(\w+)|\[(?:\d+|\.\.\.)\]", where))
            inner = tuple(part for part in inner if part)
            unknown = re.search(r"unknown field `(.+)`", message)
            if unknown:
                known = _fields_of(kind, inner)
                inner += (unknown[1],)
                message = f"unknown key{did_you_mean(unknown[1], known)}"
                if known:
                    message += f"; known: {', '.join(known)}"
            if entry := _entry_of(self.table(value, path), kind, str(error)):
                inner = (inner[0], entry, *inner[1:])
            raise self.error(path + inner, message) from error


def _entry_of(table: dict[str, Any], kind: type, said: str) -> str:
    """The entry of a table of tables that msgspec's error calls `[...]`; empty for none."""
    found = re.search(r" - at `\$\.(\w+)\[\.\.\.\]", said)
    entries = table.get(found[1]) if found else None
    if found is None or not isinstance(entries, dict):
        return ""
    for key, each in entries.items():
        try:
            msgspec.convert({**table, found[1]: {key: each}}, kind)
        except msgspec.ValidationError as error:
            if str(error) == said:
                return str(key)
    return ""


def _fields_of(kind: type[Struct], path: tuple[str, ...]) -> list[str]:
    """The keys that settings have at a path of tables; empty if that is not known."""
    for part in path:
        found = next((e for e in msgspec.structs.fields(kind) if e.encode_name == part), None)
        inner = _struct_in(found.type) if found is not None else None
        if inner is None:
            return []
        kind = inner
    return [each.encode_name for each in msgspec.structs.fields(kind)]


def _struct_in(annotation: object) -> type[Struct] | None:
    """The settings class that a type is, or contains."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation
    inner = (_struct_in(each) for each in typing.get_args(annotation))
    return next((each for each in inner if each is not None), None)


def _check_auth(table: dict[str, Any], source: _Source, path: tuple[str, ...]) -> None:
    """Check the table `auth` in a table, as one of its kind: errors name the keys of that."""
    if "auth" not in table:
        return
    from seawall.identity.outbound.settings import AUTH_KINDS  # noqa: PLC0415 - if there is one

    path = (*path, "auth")
    auth = source.table(table["auth"], path)
    kind = auth.get("kind", "")
    if not isinstance(kind, str) or kind not in AUTH_KINDS:
        meant = did_you_mean(str(kind), AUTH_KINDS) if kind else ""
        raise source.error((*path, "kind"), f"must be one of: {', '.join(AUTH_KINDS)}{meant}")
    source.convert(auth, AUTH_KINDS[kind], path)


def _tools(tables: dict[str, Any], source: _Source) -> dict[str, Any]:
    """The sections that tables `[tools.NAME]` belong to."""
    toolsets: dict[str, ToolsetSettings] = {}
    sources: dict[str, SourceSettings] = {}
    for key, entry in tables.items():
        table = source.table(entry, ("tools", key))
        if "factory" in table or not {"openapi", "mcp", "command"} & table.keys():
            toolsets[key] = _toolset(table, source, key)
            continue
        from seawall.tools.settings import McpSettings, OpenApiSettings  # noqa: PLC0415 - if any

        _check_auth(table, source, ("tools", key))
        kind = OpenApiSettings if "openapi" in table else McpSettings
        sources[key] = source.convert(table, kind, ("tools", key))
    return {"tools": toolsets, "sources": sources}


def _knowledge(tables: dict[str, Any], source: _Source) -> "dict[str, KnowledgeSettings]":
    """The section of tables `[knowledge.NAME]`."""
    from seawall.knowledge.settings import KnowledgeSettings, check_name  # noqa: PLC0415 - if any

    for key in tables:
        try:
            check_name(key)
        except ValueError as error:
            raise source.error(("knowledge", key), str(error)) from None
    made: dict[str, KnowledgeSettings] = {}
    for key, entry in tables.items():
        each = source.convert(entry, KnowledgeSettings, ("knowledge", key))
        index = each.index or f"{key}.knowledge"
        for other, settings in made.items():
            if settings.index == index:
                raise source.error(("knowledge", key, "index"), f"is that of knowledge.{other}")
        made[key] = msgspec.structs.replace(each, index=index)
    return made


def _meant(table: dict[str, Any]) -> str:
    """The key of a kind of tools that another key of the table is near to."""
    kinds = ("factory", "openapi", "mcp", "command")
    return next(filter(None, (did_you_mean(each, kinds) for each in table)), "")


def _toolset(table: dict[str, Any], source: _Source, key: str) -> ToolsetSettings:
    factory = table.get("factory")
    if not isinstance(factory, str) or factory.count(":") != 1:
        raise source.error(
            ("tools", key, "factory"),
            f'must be "module:function"; or set openapi, mcp or command{_meant(table)}',
        )
    rest = {name: value for name, value in table.items() if name != "factory"}
    own = frozenset(name for name in rest if source.is_set(("tools", key, name)))
    return ToolsetSettings(factory, rest, own)


def _rename_old_keys(
    table: dict[str, Any], source: _Source, path: tuple[str, ...] = (), variable: str = ""
) -> None:
    """Give the keys of a table, and of the tables in it, their present names.

    Args:
        table: Changed in place.
        source: For messages.
        path: Where the table stands.
        variable: The environment variable that has set it; empty for the file.
    """
    for key, value in list(table.items()):
        old = (*path, key)
        name = _present_name(old)
        new = (*path, name)
        if name != key:
            if name in table:
                raise source.error(old, f"is the old name of {name}, which is set as well")
            if not variable:
                source.renamed[new] = old
            _warn_renamed(old, name, source)
            table[name] = table.pop(key)
        if isinstance(value, dict):
            _rename_old_keys(value, source, new, variable)


def _present_name(path: tuple[str, ...]) -> str:
    """The last part of a key's path, or what it is called now."""
    for old, name in RENAMED_KEYS.items():
        parts = old.split(".")
        if len(parts) == len(path) and all(
            part in ("*", key) for part, key in zip(parts, path, strict=True)
        ):
            return name
    return path[-1]


def _warn_renamed(old: tuple[str, ...], name: str, source: _Source) -> None:
    key = ".".join((*old[:-1], name))
    message = f"is now called {key}; the old name will not be accepted by the next release"
    _log.warning("%s", source.error(old, message))


def _override(
    document: dict[str, Any],
    variable: str,
    value: str,
    source: _Source,
    environment: Mapping[str, str],
) -> None:
    path = tuple(variable.removeprefix("SEAWALL_").lower().split("__"))
    source.overridden[path] = variable
    if (name := _present_name(path)) != path[-1]:
        _warn_renamed(path, name, source)
        other = variable[: -len(path[-1])] + name.upper()
        if other in environment:
            raise source.error(path, f"is the old name of {name}, and {other} is set as well")
        path = (*path[:-1], name)
        source.overridden[path] = variable
    read = _value_of(value)
    if isinstance(read, dict):
        _rename_old_keys(read, source, path, variable)
    table = document
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise source.error(path, "a key cannot be set inside a value that is not a table")
    table[path[-1]] = read


def _value_of(text: str) -> object:
    """The value of a variable, which is TOML, or else plain text."""
    if not text.startswith(_TOML_BEGINS):
        return text
    if text in ("true", "false"):
        return text == "true"
    try:
        return _parsed(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _warn_single_underscore(variable: str) -> None:
    """Warn of a variable that is ignored because it has one underscore instead of two."""
    section, underscore, rest = variable.removeprefix("SEAWALL_").partition("_")
    name = section.lower()
    if underscore and (
        name in _plain_sections or name in _named_sections or name in _OTHER_SECTIONS
    ):
        _log.warning(
            "%s (environment): is not a setting; did you mean SEAWALL_%s__%s?",
            *(variable, section, rest),
        )


def _check_references(settings: Settings, source: _Source) -> None:
    """Check that every agent, model, quota and source that is named exists."""

    def check(path: tuple[str, ...], what: str, name: str, known: Mapping[str, object]) -> None:
        if name and name not in known:
            listed = ", ".join(sorted(known)) or "none"
            meant = did_you_mean(name, known)
            raise source.error(path, f'unknown {what} "{name}"{meant}; known: {listed}')

    for name, agent in settings.agents.items():
        check(("agents", name, "model"), "model", agent.model, settings.models)
        check(("agents", name, "summary_model"), "model", agent.summary_model, settings.models)
        for other in agent.handoffs:
            check(("agents", name, "handoffs"), "agent", other, settings.agents)
    for name, model in settings.models.items():
        check(("models", name, "quota"), "quota", model.quota, settings.quotas)
        for other in model.fallbacks:
            check(("models", name, "fallbacks"), "model", other, settings.models)
    _check_tenants(settings, source)
    for name, intent in settings.intents.items():
        check(("intents", name, "agent"), "agent", intent.agent, settings.agents)
    routing = settings.routing
    check(("routing", "default_agent"), "agent", routing.default_agent, settings.agents)
    check(("routing", "intent_model"), "model", routing.intent_model, settings.models)
    _check_no_intent(settings, source)
    for path, message in (
        *model_faults(settings.models),
        *budget_faults(settings.budgets, settings.models),
        *_mcp_faults(settings),
        *_console_faults(settings),
        *_quota_faults(settings),
    ):
        raise source.error(path, message)
    if len(settings.agents) > 1 and not routing.default_agent:
        raise source.error(("routing", "default_agent"), "must name the default agent")


def _mcp_faults(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What agents lack to be tools for others, and tokens to be accepted for that."""
    if settings.mcp is None:
        return
    for name in settings.mcp.agents:
        if name not in settings.agents:
            meant, known = did_you_mean(name, settings.agents), ", ".join(sorted(settings.agents))
            yield ("mcp", "agents"), f'unknown agent "{name}"{meant}; known: {known}'
        elif not settings.agents[name].description:
            message = "must say what the agent is for: it is a tool of [mcp]"
            yield ("agents", name, "description"), message
    jwt = settings.identity.jwt
    if jwt is not None and not settings.mcp.url:
        yield ("mcp", "url"), "must be set: clients request tokens for this address"
    if jwt is not None and not jwt.audience:
        message = "must be set: the endpoint of [mcp] may only accept tokens that are meant for it"
        yield ("identity", "jwt", "audience"), message


def _console_faults(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is missing for a login to the console."""
    console, identity = settings.console, settings.identity
    if console.login is not None and identity.jwt is None:
        yield ("console", "login"), "needs the issuer of [identity.jwt]"
    roles = (*console.look, *console.read, *console.approve, *console.operate)
    if console.enabled and not (roles or identity.anonymous):
        yield (
            ("console", "enabled"),
            "no role may use it: name roles in look, read, approve, operate",
        )
    if console.surge is not None and not console.reports:
        yield ("console", "surge"), "needs console.reports, a folder for its reports"
    if console.surge is not None and not (console.surge.token_file or identity.anonymous):
        yield (
            ("console", "surge", "token_file"),
            "must name the tokens of its people",
        )


def _quota_faults(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Agents of which no call would ever be admitted, as its bound alone exceeds the quota."""
    for name, agent in settings.agents.items():
        model = settings.models.get(agent.model)
        if model is None or not model.quota:
            continue
        quota = settings.quotas[model.quota]
        if quota.reserve == "usage" or (quota.reserve == "auto" and model.kind == "anthropic"):
            continue
        limits = (quota.tokens_per_minute, quota.output_tokens_per_minute)
        least = min((each for each in limits if each), default=0)
        bound = agent.limits.call_tokens or agent.limits.completion_tokens
        capacity = int(least * quota.burst_seconds / 60)
        if least and bound > capacity:
            message = f"a call reserves {bound:,}, and quotas.{model.quota} never has more than "
            key = "call_tokens" if agent.limits.call_tokens else "completion_tokens"
            yield ("agents", name, "limits", key), f"{message}{capacity:,}"


def _check_tenants(settings: Settings, source: _Source) -> None:
    """Check that the sources for which tenants have credentials exist."""
    for tenant, tables in settings.tenants.items():
        for name in tables.tools:
            if name not in settings.sources:
                meant = did_you_mean(name, settings.sources)
                path = ("tenants", tenant, "tools", name)
                raise source.error(path, f"no OpenAPI document or MCP server has this name{meant}")


def _check_no_intent(settings: Settings, source: _Source) -> None:
    """Check that the intent `none` has examples only."""
    none = settings.intents.get(NO_INTENT, IntentSettings())
    for key in ("description", "agent", "patterns"):
        if getattr(none, key):
            raise source.error(
                ("intents", NO_INTENT, key),
                f"intents.{NO_INTENT} is for examples of messages that have no intent; "
                f"remove {key}, or give the intent another name",
            )


def located(error: ConfigError, path: Path) -> ConfigError:
    """An error that begins with a key of the configuration, with its file and line.

    Args:
        error: Of something that the configuration names.
        path: The configuration.
    """
    key, colon, _ = str(error).partition(":")
    keys = _keys(key)
    if not colon or keys[0] not in ("tools", "knowledge", "tenants", "effects"):
        return error
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return error
    return ConfigError(f"{path}:{_line_of(lines, keys)}: {error}")


def _line_of(lines: list[str], path: tuple[str, ...]) -> int:
    """The line of a key, from 1; of its table, or of the table around that, if it is not there."""
    best, best_depth = 1, 0
    table: tuple[str, ...] = ()
    for number, line in enumerate(lines, 1):
        if header := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$", line):
            table = _keys(header[1])
            here = table
        elif assignment := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            here = table + _keys(assignment[1])
        else:
            continue
        depth = len(here)
        if here == path[:depth] and depth > best_depth:
            best, best_depth = number, depth
    return best


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))

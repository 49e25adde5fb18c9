"""seawall.toml to typed, validated settings. Every error names file, line and key.

A value may be overridden by an environment variable: `SEAWALL_` and the dotted path with `__` for
the dots, such as SEAWALL_SERVER__PORT=9000. The value is read as TOML, or else as plain text.

Relative paths in a file start at its folder; those in the environment at the working directory.
"""

import logging
import math
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from seawall.admission.settings import AdmissionSettings
from seawall.agents.definition import AgentLimits
from seawall.agents.output import OutputSettings
from seawall.budgets.settings import BudgetSettings, QuotaSettings, budget_faults
from seawall.caches.settings import AnswerCacheSettings, CacheLimits
from seawall.errors import ConfigError, did_you_mean
from seawall.identity.settings import IdentitySettings
from seawall.intents.definition import NO_INTENT
from seawall.models.settings import ModelSettings, invalid_setting, model_faults
from seawall.pipeline.stages import StageLimits
from seawall.storage.settings import SessionSettings
from seawall.telemetry.settings import TelemetrySettings

__all__ = [
    "AgentSettings",
    "CorsSettings",
    "IntentSettings",
    "RoutingSettings",
    "ServerSettings",
    "Settings",
    "ToolsetSettings",
    "load_settings",
    "parse_settings",
]

T = TypeVar("T", bound=Struct)

_log = logging.getLogger("seawall.config")
_LONGEST_SECONDS = 86_400.0
_MOST = 1 << 40


_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://[a-z0-9_.-]+(?::\d{1,5})?\Z|[a-z]+://\[[0-9a-f:]+\](?::\d{1,5})?\Z"
)


class CorsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which pages of other origins may call the API from a browser.

    origins: as browsers send them, such as `https://shop.example`; "*" is all of them.
    methods, headers: what such a page may send; "*" among the headers is whatever it asks for.
    expose: the headers of answers that it may read. credentials: whether a browser may send
    cookies along. max_age_seconds: how long a browser may remember all this.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ("GET", "POST", "DELETE")
    headers: tuple[str, ...] = (
        "accept",
        "authorization",
        "cache-control",
        "content-type",
        "idempotency-key",
        "last-event-id",
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
        "retry-after",
        "seawall-session",
        "server-timing",
        "x-request-id",
    )
    credentials: bool = False
    max_age_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 600

    def __post_init__(self) -> None:
        """Anything but what browsers send would never match; "*" never goes with credentials."""
        if not self.origins:
            raise ValueError("origins: name at least one, or leave out [server.cors]")
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.match(origin):
                raise ValueError(
                    f"origins: {origin!r} is not an origin as browsers send it: scheme, host in "
                    "lower case and a port where it is not the usual one, without a path"
                )
        if self.credentials and "*" in self.origins:
            raise ValueError('credentials: cannot be true with the origin "*": name the origins')
        for name in (*self.methods, *self.headers, *self.expose):
            if not _TOKEN.match(name):
                raise ValueError(f"{name!r} is not the name of a header or method")


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP host and the limits of what a stranger may send it.

    workers: processes; 0 for as many as there are processors it may use.
    max_connections: of one worker; beyond it those that have been idle longest give way.
    max_unread_bytes: of requests that are not whole, on all connections of a worker together.
    header_seconds, body_seconds: until the request's head and body must have arrived.
    stall_seconds: how long a client may leave an answer unread before it is cut off.
    warm_up: whether a process runs some turns without effect before it says that it is ready.
    shutdown_delay_seconds: how long turns are still taken after SIGTERM, while `/readyz` says no already.
    drain_seconds: how long turns in flight may take to finish after that.
    flush_delay_seconds: under load, the longest that text after a stream's first is held back, to go
    out in larger pieces and leave the processor to those who wait for their first; 0: never.
    frozen_seconds: a worker whose event loop has not come round for so long is killed and another
    started, where there are several; 0: never, and less than 2 counts as 2.
    access_log: whether each request leaves a line in the log. cors: None where pages of other
    origins may not call the API.
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
    """A set of tools: `module:function`, called at start with the table's other keys.

    from_environment: those of them that a variable of the environment has set.
    """

    factory: str
    arguments: dict[str, Any]
    from_environment: frozenset[str] = frozenset()


class IntentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """An intent: what tells it, and whose it is."""

    description: str = ""
    agent: str = ""
    examples: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class AgentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent; `limits` are those of one turn.

    reasoning: clients of the turns API are shown what the model thinks.
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


class RoutingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How an agent is chosen.

    intent_model: the model that is asked when the local classifier is not sure; empty for none.
    intent_threshold: the confidence from which the classifier answers by itself; None for the
    calibrated one.
    classifier: what tells intents apart by their examples; "embeddings" understands more and
    takes milliseconds where n-grams are not sure. embedding_model: the folder of its model; empty
    for the installed package. classifier_cache: a file that keeps the trained classifier, for all
    processes; empty for none.
    """

    default_agent: str = ""
    sticky: Literal["always", "until-confident", "never"] = "until-confident"
    intent_model: str = ""
    intent_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    classifier: Literal["ngrams", "embeddings"] = "ngrams"
    embedding_model: str = ""
    classifier_cache: str = ""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be configured.

    source: the file that they come from, for errors; empty where there is none. folder: where its
    relative paths start; empty for the working directory.
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
    budgets: BudgetSettings = BudgetSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    quotas: dict[str, QuotaSettings] = field(default_factory=dict)
    models: dict[str, ModelSettings] = field(default_factory=dict)
    tools: dict[str, ToolsetSettings] = field(default_factory=dict)
    intents: dict[str, IntentSettings] = field(default_factory=dict)
    agents: dict[str, AgentSettings] = field(default_factory=dict)


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return parse_settings(text, name=str(path), environment=environment, folder=str(path.parent))


def parse_settings(
    text: str,
    *,
    name: str = "seawall.toml",
    environment: Mapping[str, str] | None = None,
    folder: str = "",
) -> Settings:
    """Validate the text of a configuration file.

    Args:
        text: What stands in the file.
        name: What errors call it.
        environment: Where `SEAWALL_...` overrides are looked for.
        folder: Where relative paths of the file start; empty for the working directory.

    Raises:
        ConfigError: something is wrong; the message names file, line and key.
    """
    document, source = _read(text, name, environment or {})
    sections = _sections(document, source)
    settings = Settings(source=name, folder=folder, **sections)
    for key, model in settings.models.items():
        if wrong := invalid_setting(model, document["models"][key]):
            raise source.error(("models", key, wrong[0]), wrong[1])
    for path, message in _server_faults(settings.server):
        raise source.error(path, message)
    _check_references(settings, source)
    return _resolved(settings, source)


def _read(text: str, name: str, environment: Mapping[str, str]) -> "tuple[dict[str, Any], _Source]":
    """The document with what the environment sets in it."""
    try:
        document = tomllib.loads(text)
        source = _Source(name, text, tomllib.loads(text))
    except RecursionError:
        raise ConfigError(f"{name}: is not TOML: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits is one, too
        raise ConfigError(f"{name}: is not TOML: {error}") from error
    for variable, value in sorted(environment.items()):
        if variable.startswith("SEAWALL_"):
            if "__" in variable:
                _override(document, variable, value, source)
            else:
                _warn_single_underscore(variable)
    for path in _not_finite(document):
        raise source.error(path, "must be a finite number")
    return document, source


def _sections(document: dict[str, Any], source: "_Source") -> dict[str, Any]:
    """Each section as what it is to be."""
    sections: dict[str, Any] = {}
    for section, value in document.items():
        if section in _plain_sections:
            sections[section] = source.convert(value, _plain_sections[section], (section,))
        elif section in _named_sections:
            sections[section] = {
                key: source.convert(entry, _named_sections[section], (section, key))
                for key, entry in source.table(value, (section,)).items()
            }
        elif section == "tools":
            sections[section] = {
                key: _toolset(source.table(entry, (section, key)), source, key)
                for key, entry in source.table(value, (section,)).items()
            }
        else:
            known = sorted([*_plain_sections, *_named_sections, "tools"])
            message = f"unknown section{did_you_mean(section, known)}; known: {', '.join(known)}"
            raise source.error((section,), message)
    return sections


def _not_finite(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where numbers stand that are none, or infinite: TOML has both."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _not_finite(each, (*path, str(key)))
    elif isinstance(value, list):
        for each in value:
            yield from _not_finite(each, path)


def _server_faults(server: ServerSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Numbers that no server can have."""
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
    """The same with the paths that stand in the file, so that they start at its folder."""
    if settings.folder in ("", "."):
        return settings

    def at(value: str, *path: str) -> str:
        return value if not value or source.is_set(path) else str(Path(settings.folder, value))

    replace = msgspec.structs.replace
    jwt = settings.identity.jwt
    if jwt is not None and jwt.jwks_file:
        jwt = replace(jwt, jwks_file=at(jwt.jwks_file, "identity", "jwt", "jwks_file"))
    routing = settings.routing
    return replace(
        settings,
        identity=replace(settings.identity, jwt=jwt),
        sessions=replace(settings.sessions, path=at(settings.sessions.path, "sessions", "path")),
        routing=replace(
            routing,
            embedding_model=at(routing.embedding_model, "routing", "embedding_model"),
            classifier_cache=at(routing.classifier_cache, "routing", "classifier_cache"),
        ),
        models={
            name: replace(
                each,
                api_key_file=at(each.api_key_file, "models", name, "api_key_file"),
                path=at(each.path, "models", name, "path"),
            )
            for name, each in settings.models.items()
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
    """The text that errors point into, and what the environment has set beside."""

    def __init__(self, name: str, text: str, document: dict[str, Any]) -> None:
        self._name = name
        self._lines = text.splitlines()
        self._document = document
        self.overridden: dict[tuple[str, ...], str] = {}

    def error(self, path: tuple[str, ...], message: str) -> ConfigError:
        """An error at a key: file and line, or variable; dotted key, what is wrong."""
        key = ".".join(path)
        if variable := self._variable(path):
            return ConfigError(f"{variable} (environment): {key}: {message}")
        return ConfigError(f"{self._name}:{_line_of(self._lines, path)}: {key}: {message}")

    def is_set(self, path: tuple[str, ...]) -> bool:
        """Whether a variable of the environment has set it."""
        return any(path[: len(each)] == each for each in self.overridden)

    def _variable(self, path: tuple[str, ...]) -> str:
        """The variable that is to blame; empty where the file is.

        It has set the key, or something beneath a table that is only there by it.
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
        """The value, which must be a table."""
        if not isinstance(value, dict):
            raise self.error(path, "must be a table")
        return value

    def convert(self, value: object, kind: type[T], path: tuple[str, ...]) -> T:
        """The value as `kind`."""
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
            raise self.error(path + inner, message) from error


def _fields_of(kind: type[Struct], path: tuple[str, ...]) -> list[str]:
    """The keys of the table at this place of a table; empty where that is not known."""
    for part in path:
        found = next((e for e in msgspec.structs.fields(kind) if e.encode_name == part), None)
        inner = _struct_in(found.type) if found is not None else None
        if inner is None:
            return []
        kind = inner
    return [each.encode_name for each in msgspec.structs.fields(kind)]


def _struct_in(annotation: object) -> type[Struct] | None:
    """The only table that a value of this type can be or hold."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation
    inner = (_struct_in(each) for each in typing.get_args(annotation))
    return next((each for each in inner if each is not None), None)


def _toolset(table: dict[str, Any], source: _Source, key: str) -> ToolsetSettings:
    factory = table.get("factory")
    if not isinstance(factory, str) or factory.count(":") != 1:
        raise source.error(("tools", key, "factory"), 'must be "module:function"')
    rest = {name: value for name, value in table.items() if name != "factory"}
    own = frozenset(name for name in rest if source.is_set(("tools", key, name)))
    return ToolsetSettings(factory, rest, own)


def _override(document: dict[str, Any], variable: str, value: str, source: _Source) -> None:
    path = tuple(variable.removeprefix("SEAWALL_").lower().split("__"))
    source.overridden[path] = variable
    try:
        read: object = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        read = value
    table = document
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise source.error(path, "the environment sets a key inside something not a table")
    table[path[-1]] = read


def _warn_single_underscore(variable: str) -> None:
    """A variable with one underscore where a setting has two does nothing."""
    section, underscore, rest = variable.removeprefix("SEAWALL_").partition("_")
    name = section.lower()
    if underscore and (name in _plain_sections or name in _named_sections or name == "tools"):
        _log.warning(
            "%s (environment): is not a setting; did you mean SEAWALL_%s__%s?",
            *(variable, section, rest),
        )


def _check_references(settings: Settings, source: _Source) -> None:
    """Everything that is named must exist."""

    def check(path: tuple[str, ...], what: str, name: str, known: Mapping[str, object]) -> None:
        if name and name not in known:
            listed = ", ".join(sorted(known)) or "none"
            meant = did_you_mean(name, known)
            raise source.error(path, f'unknown {what} "{name}"{meant}; known: {listed}')

    for name, agent in settings.agents.items():
        check(("agents", name, "model"), "model", agent.model, settings.models)
        for other in agent.handoffs:
            check(("agents", name, "handoffs"), "agent", other, settings.agents)
    for name, model in settings.models.items():
        check(("models", name, "quota"), "quota", model.quota, settings.quotas)
        for other in model.fallbacks:
            check(("models", name, "fallbacks"), "model", other, settings.models)
    for name, intent in settings.intents.items():
        check(("intents", name, "agent"), "agent", intent.agent, settings.agents)
    _check_no_intent(settings, source)
    routing = settings.routing
    check(("routing", "default_agent"), "agent", routing.default_agent, settings.agents)
    check(("routing", "intent_model"), "model", routing.intent_model, settings.models)
    for path, message in (
        *model_faults(settings.models),
        *budget_faults(settings.budgets, settings.models),
    ):
        raise source.error(path, message)
    if len(settings.agents) > 1 and not routing.default_agent:
        raise source.error(("routing", "default_agent"), "must say which agent answers by default")


def _check_no_intent(settings: Settings, source: _Source) -> None:
    """Messages that have no intent are known by examples alone."""
    none = settings.intents.get(NO_INTENT, IntentSettings())
    for key in ("description", "agent", "patterns"):
        if getattr(none, key):
            raise source.error(
                ("intents", NO_INTENT, key),
                f"intents.{NO_INTENT} is for examples of messages that have no intent; "
                f"remove {key}, or give the intent another name",
            )


def _line_of(lines: list[str], path: tuple[str, ...]) -> int:
    """The line, from 1, on which the key stands; else its table's, or that of what encloses it."""
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

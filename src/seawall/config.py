"""seawall.toml to typed, validated settings. Every error names file, line and key.

A value may be overridden by an environment variable: `SEAWALL_` and the dotted path with `__` for
the dots, such as SEAWALL_SERVER__PORT=9000. The value is read as TOML, or else as plain text.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct, field

from seawall.admission.settings import AdmissionSettings
from seawall.agents.definition import AgentLimits
from seawall.agents.output import OutputSettings
from seawall.budgets.settings import BudgetSettings, budget_faults
from seawall.caches.settings import AnswerCacheSettings, CacheLimits
from seawall.errors import ConfigError
from seawall.identity.settings import IdentitySettings
from seawall.models.settings import ModelSettings, model_faults, wrong_setting
from seawall.pipeline.stages import StageLimits
from seawall.resilience.quota import QuotaSettings
from seawall.sessions.settings import SessionSettings
from seawall.telemetry.settings import TelemetrySettings

__all__ = [
    "AgentSettings",
    "IntentSettings",
    "RoutingSettings",
    "ServerSettings",
    "Settings",
    "ToolsetSettings",
    "load_settings",
    "parse_settings",
]

T = TypeVar("T", bound=Struct)


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP host and the limits of what a stranger may send it.

    workers: processes; 0 for as many as there are processors it may use.
    header_seconds, body_seconds: until the request's head and body must have arrived.
    stall_seconds: how long a client may leave an answer unread before it is cut off.
    rehearse: whether a process runs some turns without effect before it says that it is ready.
    leave_seconds: how long turns are still taken after SIGTERM, while `/readyz` says no already.
    drain_seconds: how long turns in flight may take to finish after that.
    hold_seconds: under load, the longest that text after a stream's first is held back, to go
    out in larger pieces and leave the processor to those who wait for their first; 0: never.
    frozen_seconds: a worker whose event loop has not come round for so long is killed and another
    started, where there are several; 0: never, and less than 2 counts as 2.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 0
    max_body_bytes: int = 262_144
    max_header_bytes: int = 32_768
    max_text_characters: int = 16_384
    max_messages: int = 256
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    stall_seconds: float = 20.0
    rehearse: bool = True
    leave_seconds: float = 0.0
    drain_seconds: float = 30.0
    hold_seconds: float = 0.5
    frozen_seconds: float = 20.0


class ToolsetSettings(Struct, frozen=True):
    """A set of tools: `module:function`, called at start with the table's other keys."""

    factory: str
    arguments: dict[str, Any]


class IntentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """An intent: what tells it, and whose it is."""

    description: str = ""
    agent: str = ""
    examples: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class AgentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent; `limits` are those of one turn."""

    instructions: str
    description: str = ""
    model: str = "default"
    tools: tuple[str, ...] = ()
    handoffs: tuple[str, ...] = ()
    temperature: float | None = None
    limits: AgentLimits = AgentLimits()
    output: OutputSettings | None = None
    cache: AnswerCacheSettings | None = None


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
    intent_threshold: float | None = None
    classifier: Literal["ngrams", "embeddings"] = "ngrams"
    embedding_model: str = ""
    classifier_cache: str = ""


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be configured."""

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
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return parse_settings(text, name=str(path), environment=environment)


def parse_settings(
    text: str, *, name: str = "seawall.toml", environment: Mapping[str, str] | None = None
) -> Settings:
    """Validate the text of a configuration file; `name` is what errors call it.

    Raises:
        ConfigError: something is wrong; the message names file, line and key.
    """
    source = _Source(name, text)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: is not TOML: {error}") from error
    for variable, value in sorted((environment or {}).items()):
        if variable.startswith("SEAWALL_") and "__" in variable:
            _override(document, variable, value, source)
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
            known = ", ".join(sorted([*_plain_sections, *_named_sections, "tools"]))
            raise source.error((section,), f"unknown section; known: {known}")
    settings = Settings(**sections)
    for key, model in settings.models.items():
        if wrong := wrong_setting(model, document["models"][key]):
            raise source.error(("models", key, wrong[0]), wrong[1])
    _check_references(settings, source)
    return settings


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
    """The text that errors point into."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._lines = text.splitlines()
        self.overridden: dict[tuple[str, ...], str] = {}

    def error(self, path: tuple[str, ...], message: str) -> ConfigError:
        """An error at a key: file, line, dotted key, what is wrong."""
        key = ".".join(path)
        if variable := self.overridden.get(path):
            return ConfigError(f"{variable} (environment): {key}: {message}")
        return ConfigError(f"{self._name}:{_line_of(self._lines, path)}: {key}: {message}")

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
                inner += (unknown[1],)
                message = "unknown key"
                if len(inner) == 1:
                    known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
                    message += f"; known: {known}"
            raise self.error(path + inner, message) from error


def _toolset(table: dict[str, Any], source: _Source, key: str) -> ToolsetSettings:
    factory = table.get("factory")
    if not isinstance(factory, str) or factory.count(":") != 1:
        raise source.error(("tools", key, "factory"), 'must be "module:function"')
    rest = {name: value for name, value in table.items() if name != "factory"}
    return ToolsetSettings(factory, rest)


def _override(document: dict[str, Any], variable: str, value: str, source: _Source) -> None:
    path = tuple(variable.removeprefix("SEAWALL_").lower().split("__"))
    source.overridden[path] = variable
    try:
        read: object = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        read = value
    table = document
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise source.error(path, "the environment sets a key inside something not a table")
    table[path[-1]] = read


def _check_references(settings: Settings, source: _Source) -> None:
    """Everything that is named must exist."""

    def check(path: tuple[str, ...], what: str, name: str, known: Mapping[str, object]) -> None:
        if name and name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise source.error(path, f'unknown {what} "{name}"; known: {listed}')

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

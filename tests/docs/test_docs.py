"""Every code block of docs/, followed by a reader; every table, beside what it is about."""

import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import seawall
from seawall.agents import AgentLimits
from seawall.config import (
    RENAMED_KEYS,
    AgentSettings,
    CorsSettings,
    IntentSettings,
    RoutingSettings,
    ServerSettings,
)
from seawall.errors import Problem
from seawall.events import Event
from seawall.hosts.aws_lambda.target import LambdaSettings
from seawall.identity.outbound.settings import (
    ClientCredentialsAuth,
    McpAuth,
    OAuthClientAuth,
    PassThroughAuth,
    StaticAuth,
    SubjectStoreAuth,
    TokenExchangeAuth,
)
from seawall.identity.settings import ApiKeySettings, IdentitySettings, JwtSettings
from seawall.knowledge.settings import KnowledgeLimits, KnowledgeSettings
from seawall.settings import (
    AdmissionSettings,
    AnswerCacheSettings,
    AttachmentSettings,
    BlobSettings,
    BudgetLimits,
    CacheLimits,
    ConsoleLoginSettings,
    ConsoleSettings,
    ConsoleSurgeSettings,
    EffectSettings,
    HandoverSettings,
    McpServerSettings,
    MemorySettings,
    ModelSettings,
    OutputSettings,
    PriceSettings,
    QuotaSettings,
    ResilienceSettings,
    SessionSettings,
    StageLimits,
    TelemetrySettings,
    TenantSettings,
    ToolPolicySettings,
)
from seawall.tools.settings import (
    McpSettings,
    OpenApiSettings,
    OperationSettings,
    SourceLimits,
    TlsSettings,
)
from tests.docs.blocks import Reader, blocks_of
from tests.docs.conftest import Site
from tests.servers import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Pages whose reader starts the server, with no environment variable set.
BY_HAND = {
    "agents.md",
    "effects.md",
    "getting-started.md",
    "handover.md",
    "intents.md",
    "knowledge.md",
    "lambda.md",
    "memory.md",
    "mcp-server.md",
    "openapi-tools.md",
    "mcp-tools.md",
    "python-api.md",
    "testing.md",
}
# Pages whose commands need the store's configuration, and no server.
OFFLINE = {"lab.md", "plan.md", "ship.md", "simulated-model.md"}
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "[server]": ServerSettings,
    "[server.cors]": CorsSettings,
    "[effects]": EffectSettings,
    "[handover]": HandoverSettings,
    "[memory]": MemorySettings,
    "[tools.NAME]`: openapi": OpenApiSettings,
    "[tools.NAME]`: mcp": McpSettings,
    "[tools.NAME.overrides.OPERATION]": OperationSettings,
    "[tools.NAME.limits]": SourceLimits,
    "[tools.NAME.tls]": TlsSettings,
    "[console]": ConsoleSettings,
    "[console.login]": ConsoleLoginSettings,
    "[console.surge]": ConsoleSurgeSettings,
    "[blobs]": BlobSettings,
    "[attachments]": AttachmentSettings,
    "[mcp]": McpServerSettings,
    "[knowledge.NAME]": KnowledgeSettings,
    "[knowledge.NAME.limits]": KnowledgeLimits,
    "[effects.tools.NAME]": ToolPolicySettings,
    "[turn]": StageLimits,
    "[admission]": AdmissionSettings,
    "[admission.tenants.NAME]": TenantSettings,
    "[identity]": IdentitySettings,
    "[identity.jwt]": JwtSettings,
    "[[identity.api_keys]]": ApiKeySettings,
    "[sessions]": SessionSettings,
    "[caches]": CacheLimits,
    "[routing]": RoutingSettings,
    "[models.NAME]": ModelSettings,
    "[models.NAME.price]": PriceSettings,
    "[quotas.NAME]": QuotaSettings,
    "[budgets.default]": BudgetLimits,
    "[models.NAME.resilience]": ResilienceSettings,
    "[intents.NAME]": IntentSettings,
    "[agents.NAME]": AgentSettings,
    "[agents.NAME.limits]": AgentLimits,
    "[agents.NAME.output]": OutputSettings,
    "[agents.NAME.cache]": AnswerCacheSettings,
    "[telemetry]": TelemetrySettings,
    "Credentials: static": StaticAuth,
    "Credentials: client-credentials": ClientCredentialsAuth,
    "Credentials: subject-store": SubjectStoreAuth,
    "Credentials: pass-through": PassThroughAuth,
    "Credentials: mcp": McpAuth,
}


def page_id(path: Path) -> str:
    return str(path.relative_to(DOCS))


def pages(where: Callable[[Path], bool]) -> list[Any]:
    """Pages with code; the one that measures this machine is of the long form."""
    return [
        pytest.param(path, marks=[pytest.mark.long] if path.name == "lab.md" else [])
        for path in PAGES
        if blocks_of(path) and where(path)
    ]


def follow(page: Path, folder: Path, server: str, environment: dict[str, str]) -> None:
    blocks = blocks_of(page)
    planner = any(re.search(r"seawall[ .]plan\b", block.text) for block in blocks)
    with Reader(folder, server, environment, planner=planner) as reader:
        reader.follow(blocks)


@pytest.mark.parametrize("path", pages(lambda path: path.name in BY_HAND), ids=page_id)
def test_every_code_block_by_hand_has_the_documented_result(path: Path, tmp_path: Path) -> None:
    follow(path, tmp_path, "http://127.0.0.1:9", {})


@pytest.mark.parametrize("path", pages(lambda path: path.name in OFFLINE), ids=page_id)
def test_every_code_block_without_a_server_has_the_documented_result(
    path: Path, desk: Path
) -> None:
    own = {"XDG_STATE_HOME": str(desk / "state")}  # other fleets of the lab are not its own
    follow(path, desk, "http://127.0.0.1:9", own)


@pytest.mark.parametrize(
    "path", pages(lambda path: path.name not in BY_HAND | OFFLINE), ids=page_id
)
def test_every_code_block_has_the_documented_result(path: Path, site: Site, desk: Path) -> None:
    follow(path, desk, site.url, site.environment)


def anchors_of(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ +(.*?)\s*$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        again = sum(each == anchor or each.startswith(f"{anchor}-") for each in found)
        found.add(f"{anchor}-{again}" if anchor in found else anchor)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


LINKED = [*PAGES, *sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("bench/*/*.md"))]


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text)
    targets += re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)
    for target in targets:
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), target
        if anchor and page.suffix == ".md":
            assert anchor in anchors_of(page), target


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "zensical.toml").read_text()
    listed = set(re.findall(r'"([\w/.-]+\.md)"', navigation))
    pages = {f"docs/{page_id(path)}" for path in PAGES if path.parent == DOCS}
    assert pages | {"docs/decisions/README.md", "README.md"} <= listed
    assert all((ROOT / each).is_file() for each in listed)


def test_every_decision_is_listed() -> None:
    listed = (DOCS / "decisions/README.md").read_text()
    pages = {path.name for path in (DOCS / "decisions").glob("[0-9]*.md")}
    assert pages == set(re.findall(r"\(([0-9][\w.-]+\.md)\)", listed))


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of the table under a heading, without code marks."""
    text = (DOCS / page).read_text()
    match = re.search(
        rf"^#+ `?{re.escape(heading)}`?\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert match, f"{page} has no heading {heading}"
    for line in match[1].splitlines():
        if line.startswith("| `"):
            yield [cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_with_its_default(section: str) -> None:
    documented = {cells[0]: cells[1] for cells in rows("configuration.md", section)}
    true = {
        field.encode_name: _default(field) for field in msgspec.structs.fields(SECTIONS[section])
    }
    assert documented == true


def test_every_key_of_token_exchange_beyond_those_of_a_client_is_documented() -> None:
    documented = {cells[0]: cells[1] for cells in rows("configuration.md", _EXCHANGE)}
    fields = {each.name: _default(each) for each in msgspec.structs.fields(TokenExchangeAuth)}
    client = {each.name for each in msgspec.structs.fields(OAuthClientAuth)}
    assert documented == {name: each for name, each in fields.items() if name not in client}


_EXCHANGE = "Credentials: token-exchange"


def _default(field: msgspec.structs.FieldInfo) -> str:
    """The default as it would stand in the file."""
    if field.required:
        return "required"
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None or isinstance(value, msgspec.Struct):
        return "none"
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return msgspec.json.encode(value).decode()


def test_every_renamed_key_is_documented() -> None:
    shown = {old: new for old, new, *_ in rows("configuration.md", "Renamed keys")}
    renamed = {old.replace("*", "NAME"): name for old, name in RENAMED_KEYS.items()}
    assert shown == {old: f"{old.rpartition('.')[0]}.{name}" for old, name in renamed.items()}


def test_every_public_name_is_documented() -> None:
    page = (DOCS / "python-api.md").read_text()
    missing = [name for name in seawall.__all__ if not re.search(rf"\b{name}\b", page)]
    assert missing == []


def test_every_setting_of_the_lambda_host_is_documented() -> None:
    documented = {cells[0]: cells[1] for cells in rows("lambda.md", "Settings")}
    fields = msgspec.structs.fields(LambdaSettings)
    assert documented == {field.encode_name: _default(field) for field in fields}


def test_every_error_is_documented() -> None:
    def below(kind: type[Problem]) -> Iterator[type[Problem]]:
        for each in kind.__subclasses__():
            if each.__module__ == "seawall.errors":
                yield each
                yield from below(each)

    documented = {(cells[0], cells[1]) for cells in rows("http-api.md", "Errors")}
    true = {(each.code, str(each.status)) for each in below(Problem)}
    assert documented == true


def test_every_event_is_documented_with_its_fields() -> None:
    documented = {cells[0]: set(cells[1].split(", ")) for cells in rows("http-api.md", "Events")}
    true = {str(kind.__struct_config__.tag): set(kind.__struct_fields__) for kind in Event.__args__}
    assert documented == true


def test_every_metric_is_documented(site: Site) -> None:
    documented = {cells[0]: set(cells[1].split(", ")) for cells in rows("operations.md", "Metrics")}
    # Turns with tools, one of which changes something: only then they are counted.
    said = msgspec.json.decode((ROOT / "examples/store/conversation.json").read_bytes())["user"]
    session = None
    for text in said[:3]:
        body = msgspec.json.encode({"text": text, "session": session})
        request = urllib.request.Request(f"{site.url}/v1/turns", body)
        with urllib.request.urlopen(request) as answer:
            session = msgspec.json.decode(answer.read())["session"]
    for _ in range(30):  # a scrape is reused for a second, so the first may be older than the turn
        with urllib.request.urlopen(f"{site.url}/metrics") as answer:
            text = answer.read().decode()
        if "seawall_effects_total{" in text:
            break
        time.sleep(0.1)
    true: dict[str, set[str]] = {}
    for name in re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE):
        deprecated = f"# HELP {name} Deprecated: " in text
        if not name.endswith("_created") and not deprecated:
            labels = re.findall(rf"^{name}(?:_bucket)?{{(.*?)}} ", text, re.MULTILINE)
            true[name] = {key for each in labels for key in re.findall(r'(\w+)="', each)} - {"le"}
    assert documented == {name: labels or {"-"} for name, labels in true.items()}

"""Configuration: errors name file, line and key; renamed keys are accepted."""

import re
from pathlib import Path

import pytest

from seawall.config import RENAMED_KEYS, load_settings, parse_settings
from seawall.errors import ConfigError
from tests.servers import command

GOOD = """
[models.default]
base_url = "http://127.0.0.1:1/v1"
model = "m"

[agents.one]
instructions = "Help."
"""


def test_defaults_and_the_environment() -> None:
    settings = parse_settings(
        GOOD,
        environment={
            "SEAWALL_SERVER__PORT": "9000",
            "SEAWALL_SERVER__HOST": "0.0.0.0",
            "SEAWALL_SESSIONS__PATH": "/tmp/x.db",
            "SEAWALL_AGENTS__ONE__TEMPERATURE": "0.5",
            "HOME": "/root",
        },
    )
    assert (settings.server.port, settings.server.host) == (9000, "0.0.0.0")
    assert settings.sessions.path == "/tmp/x.db"
    assert settings.agents["one"].temperature == 0.5
    assert settings.identity.anonymous is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server", "shop.toml: is not TOML"),
        ("\n[servr]\nport = 1", "shop.toml:2: servr: unknown section"),
        ("[server]\n\nprot = 1", "shop.toml:3: server.prot: unknown key"),
        ('[server]\nport = "x"', "shop.toml:2: server.port: "),
        ("server = 1", "shop.toml:1: server: must be a table"),
        ("[identity.jwt]\nissuer = 'a'", "identity.jwt: "),
        (
            "[identity.jwt]\nissuer = 'a'\njwks_url = 'http://evil.example/k'",
            "jwks_url must be https",
        ),
        (GOOD + "model = 'absent'", 'agents.one.model: unknown model "absent"'),
        (GOOD + "summary_model = 'absent'", 'agents.one.summary_model: unknown model "absent"'),
        (GOOD + "compaction = 'all'", "agents.one.compaction"),
        (GOOD + "handoffs = ['two']", "agents.one.handoffs"),
        (GOOD + "[intents.a]\nagent = 'two'", "intents.a.agent"),
        (GOOD + "[routing]\ndefault_agent = 'x'", "routing.default_agent"),
        (GOOD + "[routing]\nintent_model = 'x'", "routing.intent_model"),
        (GOOD + "[tools.t]\nfactory = 'no colon'", "tools.t.factory"),
        ("[models.m]\nmodel = 'x'", "base_url"),
        ("[models.m]\nmodel = 'x'\nbase_url = 'ftp://x'", "base_url: not an http or https URL"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, name="shop.toml")
    assert said in str(caught.value)


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="SEAWALL_SERVER__PORT"):
        parse_settings(GOOD, environment={"SEAWALL_SERVER__PORT": "http"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "tools = ['nothing']", 'unknown tool "nothing"'),
        (GOOD + "[tools.t]\nfactory = 'json:nothing'", "tools.t: json:nothing"),
        (GOOD + "[sessions]\npath = '/nowhere/x.db'", "/nowhere/x.db"),
        (GOOD.replace("model = ", "api_key_env = 'UNSET_KEY'\nmodel = "), "UNSET_KEY"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_cannot_start_says_why_and_ends(
    tmp_path: Path, text: str, said: str, workers: str
) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(text)
    ended = command("serve", str(path), "--port", "0", "--workers", workers)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[servr]\nport = 1",
            'shop.toml:1: servr: unknown section; did you mean "server"?; known:',
        ),
        ("[server]\nprot = 1", 'server.prot: unknown key; did you mean "port"?; known: host, port'),
        (
            "[tools.x]\nopenapy = 'a'",
            'or set openapi, mcp or command; did you mean "openapi"?',
        ),
        (
            "[tools.x]\nmcp = 'x'\n[tools.x.overrides.a]\n[tools.x.overrides.b]\nchange = true",
            'shop.toml:5: tools.x.overrides.b.change: unknown key; did you mean "changes"?',
        ),
        ("[turn]\ncomit = 1", 'shop.toml:2: turn.comit: unknown key; did you mean "commit"?'),
        (
            "[models.m]\nbase_url = 'http://x'\nmodel = 'm'\n[models.m.resilience]\natempts = 2",
            'shop.toml:5: models.m.resilience.atempts: unknown key; did you mean "attempts"?',
        ),
        (
            GOOD + "[agents.one.limits]\nstep = 2",
            'agents.one.limits.step: unknown key; did you mean "steps"?; known: steps, tool_calls',
        ),
        (GOOD + "model = 'defualt'", 'unknown model "defualt"; did you mean "default"?; known: d'),
        ("[server]\nport = 99999", "shop.toml:2: server.port: must be from 0 to 65535, not 99999"),
        ("[server]\nworkers = -1", "server.workers: must be from 0 to 1024, not -1"),
        ("[server]\nmax_body_bytes = 0", "server.max_body_bytes: must be from 1 to"),
        ("[server]\ndrain_seconds = -0.5", "server.drain_seconds: must be from 0 to 86400"),
        ("[server]\ndrain_seconds = nan", "server.drain_seconds: must be a finite number"),
        ("[turn]\nturn = inf", "turn.turn: must be a finite number"),
        ("[turn]\nturn = 0", "shop.toml:2: turn.turn: "),
        (GOOD + "[agents.one.limits]\nsteps = -1", "agents.one.limits.steps: "),
        (GOOD + "[routing]\nintent_threshold = 7", "routing.intent_threshold: "),
        ("[server]\nport = 1\nport = 2", "is not TOML: Cannot overwrite a value"),
        ("[server]\nport = " + "9" * 5_000, "shop.toml: is not TOML: "),
        ("a = " + "[" * 20_000, "shop.toml: is not TOML: nested too deeply"),
    ],
)
def test_errors_suggest_and_list_known_values(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, name="shop.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SEAWALL_SERVER__PROT", "1", 'server.prot: unknown key; did you mean "port"?'),
        ("SEAWALL_SEVRER__PORT", "1", 'sevrer: unknown section; did you mean "server"?'),
        ("SEAWALL_SERVER__PORT", "99999", "server.port: must be from 0 to 65535"),
        ("SEAWALL_TURN__TURN", "nan", "turn.turn: must be a finite number"),
        ("SEAWALL_SERVER__PORT__X", "1", "server.port: Expected"),
        ("SEAWALL_MODELS__OTHER__MODEL", "m", "models.other.base_url: must be given"),
        ("SEAWALL_MODELS__OTHER", '{ kind = "x" }', "models.other.kind: Invalid enum value"),
        ("SEAWALL_AGENTS__ONE__MODEL", "defualt", "agents.one.model: unknown model"),
        ("SEAWALL_AGENTS__ONE__LIMITS__STEPS", "no", "agents.one.limits.steps: "),
        ("SEAWALL_TOOLS__SHOP__DATABASE", "x", "tools.shop.factory: must be"),
        ("SEAWALL_X__", "1", "x: unknown section"),
    ],
)
def test_errors_in_the_environment_name_its_variable(variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(GOOD + "[server]\nhost = '::1'", environment={variable: value})
    assert str(caught.value).startswith(f"{variable} (environment): {said}")


def test_errors_in_the_file_name_the_file_despite_variables() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings("[server]\nprot = 1", environment={"SEAWALL_SERVER__PORT": "1"})
    assert str(caught.value).startswith("seawall.toml:2: server.prot: ")


def test_a_variable_with_one_underscore_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    environment = {"SEAWALL_SERVER_PORT": "1", "SEAWALL_LOG_LEVEL": "info", "SEAWALL_KEY": "k"}
    assert parse_settings(GOOD, environment=environment).server.port == 8080
    (record,) = caplog.records
    assert "SEAWALL_SERVER_PORT (environment): is not a setting" in record.getMessage()
    assert "did you mean SEAWALL_SERVER__PORT?" in record.getMessage()


PATHS = """
[identity.jwt]
issuer = "a"
audience = "b"
tenant = "c"
jwks_file = "keys/jwks.json"
[sessions]
path = "data/sessions.db"
[routing]
classifier = "embeddings"
embedding_model = "weights"
classifier_cache = "trained"
[models.default]
base_url = "http://127.0.0.1:1/v1"
model = "m"
api_key_file = "keys/model"
[models.secure]
base_url = "https://127.0.0.1:1/v1"
model = "m"
ca_file = "ca/models.pem"
[telemetry]
ca_file = "ca/telemetry.pem"
[models.near]
kind = "local"
path = "/weights.gguf"
[agents.one]
instructions = "Help."
[agents.one.output]
schema_file = "schema.json"
[tools.shop]
factory = "shop:make"
database = "shop.db"
"""


def paths_of(path: Path, **environment: str) -> dict[str, str]:
    settings = load_settings(path, environment)
    jwt, output = settings.identity.jwt, settings.agents["one"].output
    assert jwt is not None
    assert output is not None
    return {
        "jwks_file": jwt.jwks_file,
        "path": settings.sessions.path,
        "embedding_model": settings.routing.embedding_model,
        "classifier_cache": settings.routing.classifier_cache,
        "api_key_file": settings.models["default"].api_key_file,
        "weights": settings.models["near"].path,
        "model_ca": settings.models["secure"].ca_file,
        "telemetry_ca": settings.telemetry.ca_file,
        "schema_file": output.schema_file,
    }


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "conf" / "seawall.toml"
    path.parent.mkdir()
    path.write_text(PATHS)
    at = str(path.parent)
    assert paths_of(path) == {
        "jwks_file": f"{at}/keys/jwks.json",
        "path": f"{at}/data/sessions.db",
        "embedding_model": f"{at}/weights",
        "classifier_cache": f"{at}/trained",
        "api_key_file": f"{at}/keys/model",
        "weights": "/weights.gguf",
        "model_ca": f"{at}/ca/models.pem",
        "telemetry_ca": f"{at}/ca/telemetry.pem",
        "schema_file": f"{at}/schema.json",
    }


def test_relative_paths_of_the_environment_start_at_the_working_directory(tmp_path: Path) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text(PATHS)
    found = paths_of(
        path,
        SEAWALL_SESSIONS__PATH="own.db",
        SEAWALL_MODELS__DEFAULT='{base_url = "http://[::1]:1", model = "m", api_key_file = "k"}',
    )
    assert (found["path"], found["api_key_file"]) == ("own.db", "k")
    assert found["schema_file"] == str(tmp_path / "schema.json")


def test_the_default_store_is_beside_the_file_as_well(tmp_path: Path) -> None:
    path = tmp_path / "seawall.toml"
    path.write_text(GOOD)
    assert load_settings(path, {}).sessions.path == str(tmp_path / "seawall.db")


EXPOSED = GOOD + "description = 'Helps.'\n[mcp]\nagents = ['one']\n"
JWT = "[identity.jwt]\nissuer = 'https://i.example'\njwks_file = 'keys.json'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (EXPOSED.replace("'one'", "'on'"), 'mcp.agents: unknown agent "on"; did you mean "one"?'),
        (EXPOSED.replace("'one'", "'one', 'one'"), "mcp: agents must name each agent once"),
        (EXPOSED.replace("'one'", ""), "mcp.agents: "),
        (EXPOSED.replace("'Helps.'", "''"), "agents.one.description: must say what the agent is"),
        (EXPOSED + "url = 'http://a.example/mcp'", "mcp: url must begin with https://"),
        (EXPOSED + "url = 'https://a.example/mcp?x'", "mcp: url must be an address without"),
        (EXPOSED + JWT + "audience = 'a'", "mcp.url: must be set"),
        (EXPOSED + "url = 'https://a.example/mcp'\n" + JWT, "identity.jwt.audience: must be set"),
    ],
)
def test_agents_as_tools_need_a_description_and_tokens_for_them(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_settings(text, name="shop.toml")
    assert re.match(rf"shop\.toml:\d+: {re.escape(said)}", str(refused.value)), refused.value


def test_agents_as_tools() -> None:
    url = "https://a.example/mcp"
    text = EXPOSED + f"url = '{url}'\n" + JWT + "audience = 'a'"
    settings = parse_settings(text)
    assert settings.mcp is not None
    assert (settings.mcp.agents, settings.mcp.url) == (("one",), url)
    assert parse_settings(GOOD).mcp is None


@pytest.mark.parametrize("cut", ["bom", "crlf"])
def test_files_of_other_editors_are_read(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "seawall.toml"
    data = GOOD.encode()
    path.write_bytes(b"\xef\xbb\xbf" + data if cut == "bom" else data.replace(b"\n", b"\r\n"))
    assert load_settings(path, {}).agents["one"].instructions == "Help."


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "utf16.toml").write_bytes(GOOD.encode("utf-16"))
    (tmp_path / "nul.toml").write_bytes(b"\0")
    for name, said in (
        ("absent.toml", "cannot be read: No such file or directory"),
        ("folder.toml", "cannot be read: Is a directory"),
        ("utf16.toml", "is not UTF-8 text (byte 0)"),
        ("nul.toml", "is not TOML"),
        ("x" * 300 + ".toml", "cannot be read: File name too long"),
        ("absent.toml/x.toml", "cannot be read: "),
    ):
        with pytest.raises(ConfigError) as caught:
            load_settings(tmp_path / name, {})
        assert str(caught.value).startswith(f"{tmp_path / name}: {said}")


OLD_NAME = "the old name will not be accepted by the next release"


def test_the_old_name_of_a_renamed_key_is_accepted_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = GOOD + "[models.default.resilience]\nextra_share = 0.2\n[server]\nhold_seconds = 0.1"
    settings = parse_settings(text, name="shop.toml")
    assert settings.models["default"].resilience.retry_budget == 0.2
    assert settings.server.flush_delay_seconds == 0.1
    assert [record.getMessage().partition("; ") for record in caplog.records] == [
        (f"shop.toml:{line}: {old}: is now called {new}", "; ", OLD_NAME)
        for line, old, new in (
            (9, "models.default.resilience.extra_share", "models.default.resilience.retry_budget"),
            (11, "server.hold_seconds", "server.flush_delay_seconds"),
        )
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SEAWALL_MODELS__DEFAULT__RESILIENCE__EXTRA_SHARE", "0.2"),
        ("SEAWALL_MODELS__DEFAULT__RESILIENCE", "{ extra_share = 0.2 }"),
    ],
)
def test_the_environment_may_use_the_old_name(
    variable: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = GOOD + "[models.default.resilience]\nretry_budget = 0.9"
    settings = parse_settings(text, environment={variable: value})
    assert settings.models["default"].resilience.retry_budget == 0.2
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"{variable} (environment): models.default.resilience.extra_share: is now called "
    )


def test_an_invalid_value_under_an_old_name_is_reported_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings("[server]\nport = 1\nhold_seconds = 'x'", name="shop.toml")
    assert str(caught.value).startswith("shop.toml:3: server.flush_delay_seconds: Expected ")


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        (
            "[server]\nwarm_up = true\nrehearse = true",
            {},
            "seawall.toml:3: server.rehearse: is the old name of warm_up, which is set as well",
        ),
        (
            "",
            {"SEAWALL_SERVER__REHEARSE": "true", "SEAWALL_SERVER__WARM_UP": "true"},
            "SEAWALL_SERVER__REHEARSE (environment): server.rehearse: is the old name of warm_up",
        ),
    ],
)
def test_setting_both_names_of_a_key_is_an_error(
    text: str, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, environment=environment)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_every_renamed_key_exists_under_its_new_name(old: str) -> None:
    path = old.replace("*", "default").split(".")
    variable = "__".join(("SEAWALL", *path[:-1], RENAMED_KEYS[old])).upper()
    variable = variable.replace("SEAWALL__", "SEAWALL_", 1)
    with pytest.raises(ConfigError) as caught:
        parse_settings(GOOD, environment={variable: "[]"})
    assert "Expected" in str(caught.value)

"""What is wrong with a configuration is said with file, line and key."""

import subprocess
import sys
from pathlib import Path

import pytest

from seawall.config import parse_settings
from seawall.errors import ConfigError

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
        (GOOD + "handoffs = ['two']", "agents.one.handoffs"),
        (GOOD + "[intents.a]\nagent = 'two'", "intents.a.agent"),
        (GOOD + "[routing]\ndefault_agent = 'x'", "routing.default_agent"),
        (GOOD + "[routing]\nintent_model = 'x'", "routing.intent_model"),
        (GOOD + "[tools.t]\nfactory = 'no colon'", "tools.t.factory"),
        ("[models.m]\nmodel = 'x'", "base_url"),
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
    ended = subprocess.run(
        [sys.executable, "-m", "seawall", "serve", str(path), "--port", "0", "--workers", workers],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""

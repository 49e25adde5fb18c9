"""A production configuration served by a fleet: nothing of production is reached."""

import os
from pathlib import Path

import pytest

from seawall.config import load_settings
from seawall.errors import ConfigError
from seawall.identity.settings import IdentitySettings
from seawall.lab.demo import DemoIssuer
from seawall.lab.fleet.overrides import fleet_overrides
from seawall.settings import SessionSettings

MODEL = "http://127.0.0.1:9/v1"
PRODUCTION = """
[sessions]
store = "dynamodb"
table = "production"
region = "eu-west-1"
endpoint = "https://dynamodb.eu-west-1.amazonaws.com"
history_turns = 7

[identity.jwt]
issuer = "https://login.example.com"
audience = "shop"
jwks_url = "https://login.example.com/keys"
tenant_claim = "org.id"
subject_claim = "email"
[[identity.api_keys]]
sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
tenant = "shop"
subject = "batch"

[models.default]
kind = "anthropic"
model = "claude"
thinking = "disabled"
api_key_env = "ANTHROPIC_API_KEY"
fallbacks = ["gpt-4.1", "aws"]
[models.default.resilience]
attempts = 2
[models.default.price]
prompt = 3.0
completion = 15.0
[models."gpt-4.1"]
base_url = "https://api.openai.com/v1"
model = "a \\"quoted\\" name, \\\\ and ü"
api_key_file = "/run/secrets/openai"
length_field = "max_tokens"
[models.aws]
kind = "bedrock"
model = "nova"
region = "eu-west-1"
[models.here]
kind = "local"
path = "/models/small.gguf"
threads = 4

[agents.assistant]
instructions = "Answer."
"""


def sessions(folder: Path) -> SessionSettings:
    return SessionSettings(path=str(folder / "sessions.db"))


def replace(folder: Path, text: str) -> dict[str, str]:
    source = folder / "seawall.toml"
    source.write_text(text)
    return fleet_overrides(
        source,
        folder=folder,
        model=MODEL,
        sessions=sessions(folder),
        trusted=DemoIssuer(folder / "jwks.json").trusted,
    )


def test_models_store_and_identity_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEAWALL_MODELS__DEFAULT__BASE_URL", "https://x.example")
    monkeypatch.setenv("SEAWALL_MODELS__DEFAULT__API_KEY_ENV", "KEY")
    monkeypatch.setenv("SEAWALL_MODELS__DEFAULT__WARM_CONNECTIONS", "5")
    monkeypatch.setenv("SEAWALL_IDENTITY__JWT__TENANT", "shop")
    variables = replace(tmp_path, PRODUCTION)
    found = load_settings(tmp_path / "seawall.toml", os.environ | variables)
    assert found.models["default"].warm_connections == 5
    assert len(found.models) == 4
    for model in found.models.values():
        assert (model.kind, model.base_url) == ("openai", MODEL)
        assert (model.api_key_env, model.api_key_file) == ("", "")
    default = found.models["default"]
    assert (default.model, default.resilience.attempts) == ("claude", 2)
    assert default.fallbacks == ("gpt-4.1", "aws")
    assert default.price is not None
    assert found.models["gpt-4.1"].model == 'a "quoted" name, \\ and ü'
    assert found.models["gpt-4.1"].length_field == "max_tokens"
    assert found.sessions.store == "sqlite"
    assert found.sessions.path == str(tmp_path / "sessions.db")
    assert (found.sessions.table, found.sessions.endpoint) == ("seawall-sessions", "")
    assert found.sessions.history_turns == 7
    trusted = found.identity.jwt
    assert trusted is not None
    assert (trusted.jwks_url, trusted.jwks_file) == ("", str(tmp_path / "jwks.json"))
    assert (trusted.tenant_claim, trusted.subject_claim) == ("tenant", "sub")
    assert found.identity == IdentitySettings(jwt=trusted)


def test_unknown_keys_of_a_model_are_still_errors(tmp_path: Path) -> None:
    """Only settings of other kinds of models are dropped."""
    with pytest.raises(ConfigError, match=r"colour: unknown key"):
        replace(tmp_path, PRODUCTION.replace("thinking", "colour"))


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        (
            "SEAWALL_MODELS__EXTRA",
            '{ base_url = "https://x.example", model = "m" }',
            "models.extra",
        ),
        ("SEAWALL_MODELS__DEFAULT__api_key_env", "KEY", "models.default"),
        ("SEAWALL_IDENTITY__jwt__tenant", "shop", "identity"),
        ("SEAWALL_sessions__table", "production", "sessions.table"),
    ],
)
def test_a_conflicting_environment_is_rejected(
    name: str, value: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{part}: a fleet cannot replace it"):
        replace(tmp_path, PRODUCTION)


@pytest.mark.parametrize("name", ["GPT", "a__b", "a=b"])
def test_a_model_that_no_variable_can_name_is_rejected(name: str, tmp_path: Path) -> None:
    text = f'[models."{name}"]\nbase_url = "https://x.example"\nmodel = "m"\n'
    with pytest.raises(ConfigError, match="without capitals"):
        replace(tmp_path, text)

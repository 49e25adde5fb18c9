"""Settings by kind of model; errors name file, line and key."""

import sys

import pytest

from seawall.config import parse_settings
from seawall.errors import ConfigError
from seawall.models.open import open_upstreams
from seawall.transport.http_client import HttpClient


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            'kind = "anthropic"\nmodel = "m"\nregion = "eu-west-1"',
            r":4: models\.m\.region: does not apply",
        ),
        ('kind = "bedrock"\nmodel = "m"\nlength_field = "max_tokens"', r":4: models\.m\.length_f"),
        ('kind = "local"\nbase_url = "http://x"', r":3: models\.m\.base_url: .* to: anthropic, b"),
        ('base_url = "http://x"\nmodel = "m"\npath = "x"', r':4: models\.m\.path: .* "openai"'),
        ('kind = "anthropic"', r":1: models\.m\.model: must be given"),
        ('model = "m"', r":1: models\.m\.base_url: must be given"),
        ('kind = "gemini"\nmodel = "m"', r":2: models\.m\.kind"),
        (
            'kind = "anthropic"\nmodel = "m"\napi_key_env = "A"\napi_key_file = "b"',
            r":5: models\.m\.api_key_file: api_key_env is set already",
        ),
    ],
)
def test_invalid_settings_for_the_kind(table: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_settings(f"[models.m]\n{table}\n")


def test_each_kind_opens_and_no_other_is_imported() -> None:
    kinds = {
        "anthropic": 'model = "claude-sonnet-5"\napi_key_env = "KEY"',
        "responses": 'model = "gpt-5.6"\napi_key_env = "KEY"',
        "bedrock": 'model = "amazon.nova-pro-v1:0"\nregion = "eu-west-1"',
        "openai": 'model = "m"\nbase_url = "http://127.0.0.1:9/v1"',
    }
    for kind, table in kinds.items():
        settings = parse_settings(f'[models.m]\nkind = "{kind}"\n{table}\n')
        opened = open_upstreams(settings.models, HttpClient(), {"KEY": "secret"})
        assert kind in type(opened["m"].model).__name__.lower()
    assert "xllamacpp" not in sys.modules or "seawall.models.local" in sys.modules


def test_a_region_is_needed() -> None:
    settings = parse_settings('[models.m]\nkind = "bedrock"\nmodel = "m"\n')
    with pytest.raises(ConfigError, match=r"models\.m\.region: set it here"):
        open_upstreams(settings.models, HttpClient(), {"AWS_CONFIG_FILE": "/nowhere"})

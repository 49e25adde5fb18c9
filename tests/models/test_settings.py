"""Settings by kind of model; errors name file, line and key."""

import asyncio
import json
import sys

import pytest

from seawall.config import parse_settings
from seawall.errors import ConfigError
from seawall.models import ModelRequest, Prompt
from seawall.models.open import open_upstreams
from seawall.transport.http_client import HttpClient
from seawall.turn import UserMessage
from tests.models.player import Recording, playing
from tests.models.test_contract import TEXTS
from tests.models.wire import WIRES


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


@pytest.mark.parametrize(
    ("model", "line", "marked"),
    [
        ("eu.anthropic.claude-sonnet-5-20260401-v1:0", "", True),
        ("amazon.nova-lite-v1:0", "", True),
        ("meta.llama4-scout-17b-instruct-v1:0", "", False),  # it refuses the mark
        ("meta.llama4-scout-17b-instruct-v1:0", 'prompt_cache = "prefix"', True),
        ("amazon.nova-lite-v1:0", 'prompt_cache = "off"', False),
    ],
)
async def test_models_of_bedrock_with_a_prompt_cache_use_it(
    model: str, line: str, marked: bool
) -> None:
    bedrock = next(each for each in WIRES if each.name == "bedrock")
    async with playing(Recording(bedrock.answer(TEXTS))) as player:
        settings = parse_settings(
            f'[models.m]\nkind = "bedrock"\nmodel = "{model}"\nregion = "eu-west-1"\n'
            f'base_url = "{player.url}"\napi_key_env = "KEY"\n{line}\n'
        )
        client = HttpClient()
        opened = open_upstreams(settings.models, client, {"KEY": "secret"})["m"].model
        request = ModelRequest(Prompt("Help."), (UserMessage("hello"),))
        async for _ in opened.stream(request, deadline=asyncio.get_running_loop().time() + 20):
            pass
        await client.close()
    assert ("cachePoint" in json.dumps(player.requests[0].document)) is marked

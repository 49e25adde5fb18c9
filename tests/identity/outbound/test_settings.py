"""What a table must have; the message names the key."""

import msgspec
import pytest

from seawall.config import parse_settings
from seawall.errors import ConfigError
from seawall.identity.outbound.settings import resolve_files
from tests.identity.outbound.opened import settings_of

CLIENT = {
    "kind": "client-credentials",
    "token_url": "https://sso.example.com/token",
    "client_id": "seawall",
}
STORE = {"kind": "subject-store", "factory": "shop:tokens"}
MCP = {"kind": "mcp"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "kind"),
        ({"kind": "kerberos"}, "kerberos"),
        ({"kind": "none", "secret_env": "X"}, "secret_env"),
        ({"kind": "static"}, "exactly one of secret_env and secret_file"),
        ({"kind": "static", "secret_env": "A", "secret_file": "b"}, "exactly one"),
        ({"kind": "static", "secret_env": "A", "header": "bad header"}, "header"),
        ({"kind": "static", "secret_env": "A", "username": "a:b"}, "colon"),
        (CLIENT, "exactly one of client_secret_env and client_secret_file"),
        ({**CLIENT, "client_auth": "private_key_jwt"}, "private_key_file"),
        ({**CLIENT, "client_auth": "none", "client_secret_env": "X"}, "has no client_secret"),
        ({**CLIENT, "client_secret_env": "X", "private_key_file": "k"}, "private_key_file"),
        ({**CLIENT, "token_url": "http://sso.example.com/token"}, "token_url: http://sso"),
        ({**CLIENT, "token_url": "https://a:b@sso.example.com/token"}, "token_url"),
        (
            {**CLIENT, "client_secret_env": "X", "parameters": {"scope": "a"}},
            "parameters: scope has a key of its own",
        ),
        (
            {
                **CLIENT,
                "kind": "token-exchange",
                "client_secret_env": "X",
                "actor_token_env": "A",
                "actor_token_file": "b",
            },
            "actor_token_file",
        ),
        ({**STORE, "factory": "shop"}, "factory"),
        ({**STORE, "client_id": "seawall"}, "token_url"),
        ({**STORE, "token_url": "https://sso.example.com/token"}, "client_secret_env"),
        ({"kind": "pass-through", "audience": "a", "addresses": []}, "addresses"),
        (
            {"kind": "pass-through", "audience": "a", "addresses": ["https://a.example/v1"]},
            "must be an origin",
        ),
        ({"kind": "pass-through", "audience": "a", "addresses": ["http://a.example"]}, "https"),
        ({**MCP, "issuers": ["http://sso.example.com"]}, "issuers"),
        ({**MCP, "grant": "login"}, "login_file"),
        ({**MCP, "login_file": "x.json"}, "login_file"),
    ],
)
def test_a_mistake_is_named(table: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        settings_of(table)
    assert said in str(caught.value)


def test_paths_of_files_are_resolved() -> None:
    settings = settings_of({**CLIENT, "client_secret_file": "secret", "ca_file": "ca.pem"})
    found = resolve_files(settings, lambda key, value: f"/etc/{key}/{value}")
    assert getattr(found, "client_secret_file") == "/etc/client_secret_file/secret"  # noqa: B009
    assert getattr(found, "ca_file") == "/etc/ca_file/ca.pem"  # noqa: B009
    assert getattr(found, "private_key_file") == ""  # noqa: B009


SOURCE = """
[tools.orders]
openapi = "orders.yaml"
base_url = "https://orders.example.com"
include = ["*"]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[tools.orders.auth]\nkind = "client-credential"',
            'subject-store, pass-through, mcp; did you mean "client-credentials"?',
        ),
        ('[tools.orders.auth]\nsecret_env = "X"', ":6: tools.orders.auth.kind: must be one of: "),
        (
            '[tools.orders.auth]\nkind = "static"\nsecret_en = "X"',
            ':8: tools.orders.auth.secret_en: unknown key; did you mean "secret_env"?; known: ',
        ),
        (
            '[tenants.acme.tools.orders.auth]\nkind = "static"\nsecret_en = "X"',
            ":8: tenants.acme.tools.orders.auth.secret_en: unknown key",
        ),
        ("[tenants.acme.tools]\norders = 1", ":7: tenants.acme.tools.orders: must be a table"),
    ],
)
def test_a_mistake_in_a_configuration_has_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(SOURCE + text)
    assert said in str(caught.value)

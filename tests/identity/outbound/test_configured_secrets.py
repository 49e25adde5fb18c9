"""Secrets of the configuration: static headers, files that change, errors that name the key."""

import asyncio
import base64
import os
from pathlib import Path

import pytest

from seawall.errors import ConfigError
from seawall.identity.outbound.port import CredentialsUnavailable
from tests.identity.outbound.opened import ADA, BOB, opened, token

SECRET = "s3cret-of-the-shop"


async def headers_of(table: dict[str, object], **more: object) -> dict[str, str]:
    async with opened(table, environment={"SHOP_KEY": SECRET, **more}) as credentials:  # type: ignore[dict-item]
        deadline = asyncio.get_running_loop().time() + 1
        found = await credentials.headers(None, "", deadline=deadline)
        assert SECRET not in repr(credentials)
        return {name.decode(): value.decode() for name, value in found}


async def test_no_credentials_are_no_headers() -> None:
    assert await headers_of({"kind": "none"}) == {}


async def test_a_bearer_token_is_the_default() -> None:
    table: dict[str, object] = {"kind": "static", "secret_env": "SHOP_KEY"}
    assert await headers_of(table) == {"authorization": f"Bearer {SECRET}"}


async def test_header_and_scheme_can_be_chosen() -> None:
    table: dict[str, object] = {"kind": "static", "secret_env": "SHOP_KEY"}
    assert await headers_of({**table, "header": "X-API-Key", "scheme": ""}) == {"x-api-key": SECRET}
    assert await headers_of({**table, "scheme": "Token"}) == {"authorization": f"Token {SECRET}"}


async def test_a_user_name_makes_it_http_basic() -> None:
    pair = base64.b64encode(f"shop:{SECRET}".encode()).decode()
    table: dict[str, object] = {"kind": "static", "secret_env": "SHOP_KEY", "username": "shop"}
    assert await headers_of(table) == {"authorization": f"Basic {pair}"}


async def test_a_parameter_or_a_cookie_can_carry_it() -> None:
    table: dict[str, object] = {"kind": "static", "secret_env": "SHOP_KEY"}
    assert await headers_of({**table, "query": "apiKey"}) == {"?apiKey": SECRET}
    assert await headers_of({**table, "cookie": "SID"}) == {"cookie": f"SID={SECRET}"}
    for wrong in ({"query": "a", "cookie": "b"}, {"query": "a", "scheme": ""}):
        with pytest.raises(Exception, match="set one of query, cookie, and header"):
            await headers_of({**table, **wrong})
    with pytest.raises(ConfigError, match="that no cookie can have"):
        await headers_of({**table, "cookie": "SID"}, SHOP_KEY="a; b")


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    async with opened({"kind": "static", "secret_file": str(file)}) as credentials:
        assert await token(credentials) == "first"
        replacement = tmp_path / "new"  # as Kubernetes does it
        replacement.write_text("second\n")
        replacement.replace(file)
        assert await token(credentials) == "second"
        os.truncate(file, 0)
        with pytest.raises(CredentialsUnavailable, match=r"secret_file: .*: is empty"):
            await token(credentials)
        file.unlink()
        with pytest.raises(CredentialsUnavailable, match="No such file"):
            await token(credentials)
        file.write_text("third")
        assert await token(credentials) == "third"


async def test_after_a_refusal_another_try_makes_sense_only_with_another_secret(
    tmp_path: Path,
) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    async with opened({"kind": "static", "secret_file": str(file)}) as credentials:
        deadline = asyncio.get_running_loop().time() + 1
        sent = await credentials.headers(ADA, "", deadline=deadline)
        assert not credentials.rejected(ADA, "", sent)
        file.write_text("newer")
        assert credentials.rejected(ADA, "", sent)


async def test_what_is_missing_is_an_error_at_start_with_its_key(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for table, said in (
        ({"kind": "static", "secret_env": "NOT_SET"}, r"auth\.secret_env: the variable NOT_SET"),
        (
            {"kind": "static", "secret_file": missing},
            r"tools\.orders\.auth\.secret_file: /.*No such",
        ),
        ({"kind": "static", "secret_env": "CYRILLIC"}, r"tools\.orders\.auth: the secret has char"),
    ):
        with pytest.raises(ConfigError, match=said):
            async with opened(table, environment={"CYRILLIC": "ключ"}):
                pass


async def test_a_tenant_can_have_its_own() -> None:
    environment = {"COMMON": "common", "SHOP_A": "of-shop-a"}
    async with opened(
        {"kind": "static", "secret_env": "COMMON"},
        tenants={"acme": {"kind": "static", "secret_env": "SHOP_A"}},
        environment=environment,
    ) as credentials:
        other = type(BOB)("other", "bob")
        assert await token(credentials, ADA) == "of-shop-a"
        assert await token(credentials, other) == "common"
        assert await token(credentials, None) == "common"
    with pytest.raises(ConfigError, match=r"tenants\.acme\.tools\.orders\.auth\.secret_env"):
        async with opened(
            {"kind": "none"}, tenants={"acme": {"kind": "static", "secret_env": "NOT_SET"}}
        ):
            pass

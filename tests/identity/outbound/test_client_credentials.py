"""Tokens of this server itself, from a real authorization server."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seawall.errors import ConfigError
from seawall.identity.outbound.port import CredentialsUnavailable
from tests.faulty_server import DROP, HANG, Answer, Hang, script, serving
from tests.identity.outbound.opened import ADA, BOB, opened, token
from tests.identity.outbound.provider import (
    BRIEF,
    ORDERS,
    Provider,
    client,
    running_provider,
)

SECRET = "secret-that-is-never-shown"


def table_of(token_url: str, name: str = "basic", **more: Any) -> dict[str, Any]:
    return {
        "kind": "client-credentials",
        "token_url": token_url,
        "client_id": name,
        "client_secret_env": "SECRET",
        "resource": ORDERS,
        "scope": "orders.read",
        **more,
    }


def secret_of(name: str) -> dict[str, str]:
    return {"SECRET": client(name)["client_secret"]}


@pytest.mark.parametrize("name", ["basic", "post"])
async def test_a_client_with_a_secret(provider: Provider, name: str) -> None:
    table = table_of(provider.token_url, name, client_auth=f"client_secret_{name}")
    async with opened(table, environment=secret_of(name)) as credentials:
        claims = await provider.verify(await token(credentials))
    assert claims["aud"] == ORDERS
    assert claims["sub"] == claims["client_id"] == name
    assert claims["scope"] == "orders.read"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_client_with_a_private_key(
    provider: Provider, private_keys: dict[str, Path], algorithm: str
) -> None:
    table = signing_table(provider.token_url, algorithm, private_keys[algorithm])
    async with opened(table) as credentials:
        claims = await provider.verify(await token(credentials))
    assert claims["client_id"] == f"signs-{algorithm}"


def signing_table(token_url: str, algorithm: str, file: Path) -> dict[str, Any]:
    table = table_of(
        token_url,
        f"signs-{algorithm}",
        client_auth="private_key_jwt",
        private_key_file=str(file),
        key_id=algorithm,
        assertion_audience=token_url.removesuffix("/token"),
    )
    del table["client_secret_env"]
    return table


async def test_a_private_key_that_is_replaced_is_used_from_then_on(
    provider: Provider, private_keys: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    shutil.copy(private_keys["RS256"], file)
    table = signing_table(provider.token_url, "ES256", file)
    async with opened(table) as credentials:
        with pytest.raises(CredentialsUnavailable, match="invalid_client"):
            await token(credentials)
    async with opened(signing_table(provider.token_url, "RS256", file)) as credentials:
        first = await token(credentials)
        shutil.copy(private_keys["ES256"], file)
        deadline = asyncio.get_running_loop().time() + 30
        sent = await credentials.headers(ADA, "", deadline=deadline)
        assert credentials.rejected(ADA, "", sent)
        with pytest.raises(CredentialsUnavailable, match="invalid_client"):
            await token(credentials)  # signed with the new key, which is not this client's
    assert first


async def test_all_calls_share_one_token(provider: Provider) -> None:
    before = await provider.calls("client_credentials")
    async with opened(table_of(provider.token_url), environment=secret_of("basic")) as credentials:
        found = await asyncio.gather(
            *(token(credentials, ADA if number % 2 else BOB) for number in range(200))
        )
    assert len(set(found)) == 1
    assert await provider.calls("client_credentials") == before + 1


async def test_a_token_is_replaced_before_it_expires(provider: Provider) -> None:
    table = table_of(provider.token_url, resource=BRIEF)  # tokens of three seconds
    seen: set[str] = set()
    async with opened(table, environment=secret_of("basic")) as credentials:
        while len(seen) < 2:
            found = await token(credentials)
            await provider.verify(found)  # which has not expired
            seen.add(found)
            await asyncio.sleep(0.1)


async def test_when_the_servers_keys_change_the_next_try_has_a_token_of_the_new_ones() -> None:
    clients = [client("basic")]
    with running_provider(clients=clients) as first:
        port = int(first.url.rpartition(":")[2])
        table = table_of(first.token_url)
        async with opened(table, environment=secret_of("basic")) as credentials:
            deadline = asyncio.get_running_loop().time() + 60
            sent = await credentials.headers(ADA, "", deadline=deadline)
            # A new process on the same port has new keys: the upstream knows only those.
            with running_provider(clients=clients, port=_released(first, port)) as second:
                with pytest.raises(Exception, match="key"):
                    await second.verify(sent[0][1].decode().removeprefix("Bearer "))
                assert credentials.rejected(ADA, "", sent, 'Bearer error="invalid_token"')
                assert (await second.verify(await token(credentials)))["client_id"] == "basic"


def _released(provider: Provider, port: int) -> int:
    provider.stop()
    return port


async def test_a_wrong_secret_is_said_without_it(provider: Provider) -> None:
    table = table_of(provider.token_url)
    async with opened(table, environment={"SECRET": SECRET}) as credentials:
        with pytest.raises(CredentialsUnavailable) as caught:
            await token(credentials)
    assert "invalid_client" in caught.value.detail
    assert provider.token_url in caught.value.detail
    assert SECRET not in caught.value.detail


async def test_a_resource_that_the_server_does_not_know(provider: Provider) -> None:
    table = table_of(provider.token_url, resource="https://other.example.com")
    async with opened(table, environment=secret_of("basic")) as credentials:
        with pytest.raises(CredentialsUnavailable, match="invalid_target"):
            await token(credentials)


def answer(document: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode(), {"content-type": "application/json"})


@pytest.mark.parametrize(
    ("said", "because"),
    [
        (Answer(500, b"oops"), "status 500"),
        (Answer(429, b"{}"), "status 429"),
        (Answer(302, b"", {"location": "https://evil.example/token"}), "status 302"),
        (DROP, "closed the connection"),
        (Answer(200, b"<html>"), "not one of RFC 6749"),
        (Answer(200, b"[" * 100_000), "65536 bytes"),
        (answer({"token_type": "Bearer"}), "not one of RFC 6749"),
        (answer({"access_token": "a", "token_type": "DPoP"}), "another type than Bearer"),
        (answer({"access_token": "a\r\nx: y", "token_type": "Bearer"}), "cannot be sent"),
        (answer({"access_token": "", "token_type": "Bearer"}), "cannot be sent"),
        (answer({"access_token": "a", "expires_in": "soon"}), "not one of RFC 6749"),
        (answer({"error": "x" * 99}, 400), "refused with status 400"),
        (answer({"error": "access_denied", "error_description": "not today"}, 400), "not today"),
        (answer({"error": "a", "error_description": "a\x1b[31mb"}, 400), r"refused: a$"),
        (Answer(401, b"\xff"), "refused with status 401"),
    ],
)
async def test_a_server_that_does_not_do_its_part(said: Answer, because: str) -> None:
    async with serving(script(said)) as server:
        table = table_of(f"{server.url}/token")
        async with opened(table, environment={"SECRET": SECRET}) as credentials:
            for _ in range(5):
                with pytest.raises(CredentialsUnavailable, match=because) as caught:
                    await token(credentials)
        assert len(server.requests) == 1  # a failure is remembered
    assert SECRET not in str(caught.value)


async def test_a_server_that_is_down_or_hangs() -> None:
    said: list[Answer | Hang] = [HANG]
    async with serving(lambda _: said[0]) as server:
        table = table_of(f"{server.url}/token", timeout_seconds=0.2)
        async with opened(table, environment={"SECRET": SECRET}) as credentials:
            with pytest.raises(CredentialsUnavailable, match="in time"):
                await token(credentials)
    async with opened(table, environment={"SECRET": SECRET}) as credentials:
        with pytest.raises(CredentialsUnavailable, match=r"authorization server 127\.0\.0\.1:\d+"):
            await token(credentials)


@pytest.mark.parametrize("expires_in", [3600, "3600", None, 1e12])
async def test_lives_of_tokens_as_servers_say_them(expires_in: object) -> None:
    document = {"access_token": "abc", "token_type": "bearer", "expires_in": expires_in}
    async with serving(script(answer(document))) as server:
        table = table_of(f"{server.url}/token", parameters={"tenant": "7"}, audience="orders")
        async with opened(table, environment={"SECRET": SECRET}) as credentials:
            assert {await token(credentials) for _ in range(9)} == {"abc"}
        (request,) = server.requests
        assert b"tenant=7" in request.body
        assert b"audience=orders" in request.body


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
async def test_a_private_key_that_is_none_is_an_error_at_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key.pem"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"tools\.orders\.auth\.private_key_file: /"):
        async with opened(signing_table("https://sso.example.com/token", "RS256", file)):
            pass

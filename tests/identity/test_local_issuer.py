"""Tokens for tests: `seawall keys token`."""

import json
import time
import tomllib
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from seawall.cli.main import main
from seawall.errors import Unauthenticated
from seawall.identity import Bearer
from seawall.identity.authenticator import build_authenticator
from seawall.identity.local_issuer import LocalIssuer
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.turn import Principal

WORDS = ("keys", "token", "--tenant", "shop", "--subject", "ada")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def no_fetch(_: str, __: float) -> bytes:
    raise AssertionError


async def verified(settings: IdentitySettings, token: str) -> Principal:
    return await build_authenticator(settings, no_fetch).authenticate(Bearer(token))


async def test_a_token_is_accepted_by_the_printed_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "--audience", "tests"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("For tests only: ")
    section = captured.err[captured.err.index("[identity.jwt]") :]
    settings = msgspec.convert(tomllib.loads(section)["identity"], IdentitySettings)
    assert await verified(settings, captured.out.strip()) == Principal("shop", "ada")
    assert (folder / "test-keys/private-key.pem").stat().st_mode & 0o777 == 0o600

    assert main([*WORDS, "--audience", "tests"]) == 0  # with the same key
    assert await verified(settings, capsys.readouterr().out.strip()) == Principal("shop", "ada")

    assert main([*WORDS, "--audience", "tests", "--folder", "others"]) == 0
    with pytest.raises(Unauthenticated, match="signature"):
        await verified(settings, capsys.readouterr().out.strip())


async def test_a_key_of_ones_own_is_published_as_it_is(folder: Path) -> None:
    key = rsa.generate_private_key(3, 2_048)  # not the usual exponent
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "private-key.pem").write_bytes(pem)
    token = LocalIssuer.open(folder).token(
        issuer="https://a.example", subject="ada", tenant="shop", issued_at=int(time.time())
    )
    jwt = JwtSettings(issuer="https://a.example", jwks_file=str(folder / "jwks.json"))
    assert await verified(IdentitySettings(jwt=jwt), token) == Principal("shop", "ada")


def test_a_token_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--seconds", "60", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"token", "expires_at", "issuer", "jwks_file"}
    assert Path(found["jwks_file"]).is_file()


def test_an_unusable_key_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "test-keys").mkdir()
    (folder / "test-keys/private-key.pem").write_text("nonsense")
    assert main([*WORDS]) == 2
    assert "test-keys/private-key.pem: is not a private key" in capsys.readouterr().err
    (folder / "file").write_text("")
    assert main([*WORDS, "--folder", "file"]) == 2
    assert "seawall: file" in capsys.readouterr().err

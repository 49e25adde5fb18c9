import asyncio
import hashlib
import json
import tomllib

import msgspec
import pytest

from seawall.cli.main import main
from seawall.errors import Unauthenticated
from seawall.identity.authenticator import build_authenticator
from seawall.identity.port import Bearer
from seawall.identity.settings import ApiKeySettings, IdentitySettings
from seawall.turn import Principal


async def _no_fetch(_: str, __: float) -> bytes:
    raise AssertionError


def test_a_key_made_on_the_command_line_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--tenant", "acme", "--subject", 'a "b" ü']) == 0
    said = capsys.readouterr()
    key = said.err.split()[-1]
    settings = msgspec.convert(tomllib.loads(said.out)["identity"], IdentitySettings)
    assert key not in said.out
    authenticator = build_authenticator(settings, _no_fetch)
    assert asyncio.run(authenticator.authenticate(Bearer(key))) == Principal("acme", 'a "b" ü')
    for wrong in (key[:-1], key + "x", key.upper(), "sw_", "sw_" + "x" * 1_000, "sw_\udcff"):
        with pytest.raises(Unauthenticated):
            asyncio.run(authenticator.authenticate(Bearer(wrong)))


def test_the_key_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--tenant", "a", "--subject", "b", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert hashlib.sha256(made["key"].encode()).hexdigest() == made["sha256"]


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 257])
def test_names_that_cannot_be(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "new", "--tenant", name, "--subject", "b"])
    assert "printable" in capsys.readouterr().err


def test_a_key_listed_twice_is_a_mistake() -> None:
    entry = ApiKeySettings(sha256="0" * 64, tenant="a", subject="b")
    with pytest.raises(ValueError, match="twice"):
        IdentitySettings(api_keys=(entry, entry))


def test_credentials_do_not_show_in_logs() -> None:
    assert "hunter2" not in repr(Bearer("hunter2"))

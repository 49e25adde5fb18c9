import hashlib
import json
import sys
import tomllib
from collections import Counter
from types import FrameType
from typing import Any

import msgspec
import pytest

from seawall.cli.main import main
from seawall.errors import Unauthenticated
from seawall.identity import Bearer
from seawall.identity.authenticator import ApiKeys, build_authenticator
from seawall.identity.settings import ApiKeySettings, IdentitySettings
from seawall.turn import Principal


async def _no_fetch(_: str, __: float) -> bytes:
    raise AssertionError


async def test_a_key_made_on_the_command_line_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--tenant", "acme", "--subject", 'a "b" ü']) == 0
    captured = capsys.readouterr()
    key = captured.err.split()[-1]
    settings = msgspec.convert(tomllib.loads(captured.out)["identity"], IdentitySettings)
    assert key not in captured.out
    authenticator = build_authenticator(settings, _no_fetch)
    assert await authenticator.authenticate(Bearer(key)) == Principal("acme", 'a "b" ü')
    for wrong in (key[:-1], key + "x", key.upper(), "sw_", "sw_" + "x" * 1_000, "sw_\udcff"):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(Bearer(wrong))


def test_the_key_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--tenant", "a", "--subject", "b", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert hashlib.sha256(made["key"].encode()).hexdigest() == made["sha256"]


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 257])
def test_invalid_names_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "new", "--tenant", name, "--subject", "b"])
    assert "printable" in capsys.readouterr().err


def test_a_key_listed_twice_is_a_configuration_error() -> None:
    entry = ApiKeySettings(sha256="0" * 64, tenant="a", subject="b")
    with pytest.raises(ValueError, match="twice"):
        IdentitySettings(api_keys=(entry, entry))


def test_credentials_do_not_appear_in_logs() -> None:
    assert "hunter2" not in repr(Bearer("hunter2"))


def _work(keys: ApiKeys, key: str) -> Counter[str]:
    """Count the calls that a lookup makes, by name."""
    calls: Counter[str] = Counter()

    def count(_: FrameType, event: str, called: Any) -> None:
        if event in ("call", "c_call"):
            calls[getattr(called, "__name__", "python")] += 1

    sys.setprofile(count)
    try:
        keys.find(key)
    finally:
        sys.setprofile(None)
    calls.pop("setprofile")
    return calls


def test_a_lookup_does_the_same_work_for_every_key() -> None:
    known = [f"sw_{number:043d}" for number in range(20)]
    keys = ApiKeys(
        [
            ApiKeySettings(sha256=hashlib.sha256(key.encode()).hexdigest(), tenant="t", subject="s")
            for key in known
        ]
    )
    right = [_work(keys, key) for key in known]
    wrong = [_work(keys, known[7][:-length] + "x" * length) for length in range(1, 43)]
    assert right[0]["compare_digest"] == len(known)
    assert all(each == right[0] for each in right + wrong)


@pytest.mark.parametrize(
    ("secret", "section"),
    [
        ("sw_unknown", "[[identity.api_keys]]"),
        ("sk-anything", "[[identity.api_keys]]"),
        ("eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "[identity.jwt]"),
    ],
)
async def test_a_refusal_names_the_section_that_is_missing(secret: str, section: str) -> None:
    authenticator = build_authenticator(IdentitySettings(anonymous=True), _no_fetch)
    with pytest.raises(Unauthenticated) as refused:
        await authenticator.authenticate(Bearer(secret))
    assert section in str(refused.value)
    assert secret not in str(refused.value)

"""Roles, which tokens and API keys grant."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.cli.main import main
from seawall.identity import Anonymous, Authenticator, Bearer
from seawall.identity.authenticator import build_authenticator
from seawall.identity.settings import IdentitySettings, claimed_roles
from seawall.turn import Principal
from tests.issuer import AUDIENCE, ISSUER, Issuer


async def _nothing(_url: str, _deadline: float) -> bytes:
    raise AssertionError


def _authenticator(**settings: Any) -> Authenticator:
    return build_authenticator(msgspec.convert(settings, IdentitySettings), _nothing)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("one")
    return issuer


@pytest.mark.parametrize(
    ("claim", "claims", "roles"),
    [
        ("roles", {"roles": ["manager", "operator"]}, ("manager", "operator")),
        ("roles", {"roles": "manager operator"}, ("manager", "operator")),
        ("realm.roles", {"realm": {"roles": ["manager"]}}, ("manager",)),
        ("https://x.example/roles", {"https://x.example/roles": ["manager"]}, ("manager",)),
        ("roles", {"roles": ["manager", "manager"]}, ("manager",)),
        ("roles", {}, ()),
        ("roles", {"roles": ["manager", 7]}, ()),
        ("roles", {"roles": {"manager": True}}, ()),
        ("roles", {"roles": ["manager", "x" * 129]}, ()),
        ("roles", {"roles": ["manager", "line\nbreak"]}, ()),
        ("roles", {"roles": [f"r{number}" for number in range(65)]}, ()),
        ("roles", {"roles": 1}, ()),
        ("roles", {"roles": True}, ()),
    ],
)
async def test_roles_of_a_token(
    tmp_path: Path, issuer: Issuer, claim: str, claims: dict[str, Any], roles: tuple[str, ...]
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(issuer.key_set())
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(file), "roles_claim": claim}
    authenticator = _authenticator(jwt=jwt)
    for _ in range(2):  # with the key that was kept as well
        principal = await authenticator.authenticate(Bearer(issuer.token(**claims)))
        assert (principal.subject, principal.roles) == ("ada", roles)


async def test_roles_of_an_api_key_and_of_anonymous_callers() -> None:
    digest = hashlib.sha256(b"sw_key").hexdigest()
    key = {"sha256": digest, "tenant": "acme", "subject": "ada", "roles": ["manager"]}
    authenticator = _authenticator(anonymous=True, api_keys=[key])
    assert (await authenticator.authenticate(Bearer("sw_key"))).roles == ("manager",)
    assert (await authenticator.authenticate(Anonymous(loopback=True, reason=""))).roles == ()
    with pytest.raises(msgspec.ValidationError, match="roles must be"):
        _authenticator(api_keys=[key | {"roles": [""]}])


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.lists(st.text() | st.integers() | st.none(), max_size=80)
    | st.dictionaries(st.text(), st.text())
)
def test_whatever_a_claim_has_its_roles_are_bounded_names(value: object) -> None:
    roles = claimed_roles(value)
    assert len(roles) <= 64
    assert len(set(roles)) == len(roles)
    assert all(1 <= len(each) <= 128 and each.isprintable() for each in roles)


async def test_a_token_for_tests_has_roles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "keys")
    who = ["--tenant", "acme", "--subject", "meg", "--role", "manager", "--role", "operator"]
    assert main(["keys", "token", *who, "--folder", folder]) == 0
    token = capsys.readouterr().out.strip()
    jwt = {"issuer": "seawall-test", "jwks_file": f"{folder}/jwks.json"}
    principal = await _authenticator(jwt=jwt).authenticate(Bearer(token))
    assert principal.roles == ("manager", "operator")
    assert main(["keys", "new", *who]) == 0
    assert 'roles = ["manager", "operator"]' in capsys.readouterr().out


def test_principals_are_the_same_whatever_their_roles() -> None:
    one, other = Principal("acme", "ada"), Principal("acme", "ada", ("clerk",))
    assert one == other
    assert not one != other  # noqa: SIM202 - the operator itself
    assert hash(one) == hash(other)
    for stranger in (Principal("acme", "bob"), Principal("other", "ada"), "ada"):
        assert one != stranger
        assert not one == stranger  # noqa: SIM201

"""Sealed cookies, permissions, and the secret that workers share."""

from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.config import parse_settings
from seawall.console.access import Login, Seal, console_secret, permissions
from seawall.errors import ConfigError
from seawall.settings import ConsoleSettings
from seawall.turn import Principal

REST = """
[models.default]
base_url = "http://127.0.0.1:9"
model = "m"
[agents.a]
instructions = "x"
"""

_PRINTABLE = st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"], include_characters=" ")
names = st.text(_PRINTABLE, min_size=1, max_size=20)


@given(names, names, st.lists(names, max_size=8), st.integers(0, 10_000), st.integers(1, 255))
def test_a_login_is_opened_as_it_was_closed_and_only_so(
    tenant: str, subject: str, roles: list[str], at: int, change: int
) -> None:
    seal = Seal(b"s" * 32, clock=lambda: 1_000.0)
    cookie = seal.login(Principal(tenant, subject, tuple(roles)), 60.0)
    login = seal.read_login(cookie)
    assert login is not None
    assert (login.tenant, login.subject, login.roles) == (tenant, subject, tuple(roles))
    place = at % len(cookie)
    for forged in (
        cookie[:place] + chr(ord(cookie[place]) ^ change) + cookie[place + 1 :],
        cookie[:place],
    ):
        # The last character of unpadded Base64 has bits that mean nothing.
        assert place >= len(cookie) - 1 or seal.read_login(forged) is None
    assert Seal(b"t" * 32, clock=lambda: 1_000.0).read_login(cookie) is None
    assert Seal(b"s" * 32, clock=lambda: 1_060.0).read_login(cookie) is None
    assert seal.open(cookie, Login, b"login") is None


def test_a_cookie_stays_within_what_browsers_take() -> None:
    roles = tuple("r" * 128 for _ in range(64))
    owner = Principal("t" * 256, "s" * 256, roles)
    cookie = Seal(b"s" * 32).login(owner, 60.0, address="a" * 500, agent="\xff" * 5_000)
    assert len(cookie) < 4_000


def test_each_login_has_a_token_of_its_own() -> None:
    seal = Seal(b"s" * 32)
    owner = Principal("t", "s")
    ids = {login.id for _ in range(2) if (login := seal.read_login(seal.login(owner, 60.0)))}
    assert len({seal.token(each) for each in (*ids, "")}) == 3
    assert seal.token("") != Seal(b"t" * 32).token("")


@pytest.mark.parametrize(
    ("roles", "granted"),
    [
        ((), set()),
        (("other",), set()),
        (("a",), {"look"}),
        (("b",), {"look", "read"}),
        (("b", "c"), {"look", "read", "approve"}),
        (("d",), {"look", "operate"}),
    ],
)
def test_whoever_may_do_anything_may_look(roles: tuple[str, ...], granted: set[str]) -> None:
    settings = ConsoleSettings(look=("a",), read=("b",), approve=("c",), operate=("d",))
    assert permissions(settings, roles) == granted


def test_workers_that_start_at_once_share_a_secret(tmp_path: Path) -> None:
    with ThreadPool(8) as pool:
        secrets = pool.map(lambda _: console_secret(ConsoleSettings(), {}, tmp_path), range(16))
    assert len(set(secrets)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["console.key"]
    assert (tmp_path / "console.key").stat().st_mode & 0o077 == 0
    assert console_secret(ConsoleSettings(), {}, None) not in secrets


@pytest.mark.parametrize("environment", [{}, {"SECRET": "short"}])
def test_a_configured_secret_has_to_be_there(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="secret_env: SECRET must have 32"):
        console_secret(ConsoleSettings(secret_env="SECRET"), environment, None)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("enabled = true", "console.enabled"),
        ("looks = ['a']", "console.looks"),
        ("viewers = 0", "console.viewers"),
        ("session_seconds = 1.0", "console.session_seconds"),
        ("[console.login]\nclient_id = 'c'\nurl = 'https://a.example/console'", "console.login"),
        ("[console.login]\nclient_id = 'c'\nurl = 'http://a.example/console'", "console.login"),
        ("[console.login]\nclient_id = 'c'\nurl = 'https://a.example/'", "console.login"),
    ],
)
def test_faults_of_the_section_name_their_key(table: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"seawall\.toml:\d+: {key}"):
        parse_settings(f"[console]\n{table}\n{REST}")


@pytest.mark.parametrize(
    ("table", "on"),
    [
        ("", False),
        ("[identity]\nanonymous = true", True),
        ("[identity]\nanonymous = true\n[console]\nenabled = false", False),
        ("[console]\nenabled = true\nlook = ['ops']", True),
        ("[console]\nlook = ['ops']", False),
    ],
)
def test_it_is_on_where_that_is_said_or_for_this_machine(table: str, on: bool) -> None:
    settings = parse_settings(f"{table}\n{REST}")
    assert settings.has_console is on

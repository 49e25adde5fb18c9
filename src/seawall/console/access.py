"""Who may do what in the console: permissions by role, sealed cookies, tokens against forgery.

A login is a cookie that only servers with the same secret can read or write (AES-256-GCM), so that
any worker, and any server behind the same address, accepts it. It ends at a time that is in it, or
when it is ended early; see `logins`.
"""

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.settings import ConsoleSettings
from seawall.turn import Principal

__all__ = [
    "PERMISSIONS",
    "Login",
    "Permission",
    "Seal",
    "Viewer",
    "console_secret",
    "permissions",
]

Permission = Literal["look", "read", "approve", "operate"]
PERMISSIONS: tuple[Permission, ...] = ("look", "read", "approve", "operate")

_MIN_SECRET_CHARACTERS = 32
_NONCE_BYTES = 12
_MAX_ROLE_CHARACTERS = 1_800  # in a cookie, of which browsers take 4,096 bytes
_MAX_ADDRESS_CHARACTERS = 64
_MAX_AGENT_CHARACTERS = 120

T = TypeVar("T", bound=Struct)


class Login(Struct, frozen=True):
    """What a session cookie contains.

    Attributes:
        tenant: Of the person.
        subject: The person.
        roles: As the credential had them at the login.
        expires_at: Unix seconds.
        id: Random; the token against forgery is derived from it.
        began_at: Unix seconds.
        address: From which it was made.
        agent: The browser, as it calls itself.
    """

    tenant: str
    subject: str
    roles: tuple[str, ...]
    expires_at: float
    id: str
    began_at: float = 0.0
    address: str = ""
    agent: str = ""


class Viewer(Struct, frozen=True):
    """A user of the console.

    Attributes:
        principal: As whom turns run, and decisions are taken.
        permissions: What may be done.
        by: How the person is known: by a cookie, by a header with a credential, or as a user of
            this machine.
        token: What requests that change something repeat in the header `X-Console-Token`.
        login: The login of a cookie; None otherwise.
    """

    principal: Principal
    permissions: frozenset[Permission]
    by: Literal["cookie", "header", "anonymous"]
    token: str
    login: Login | None = None


def permissions(settings: ConsoleSettings, roles: tuple[str, ...]) -> frozenset[Permission]:
    """What these roles permit; each of the others includes looking."""
    granted: set[Permission] = {
        each for each in PERMISSIONS if not set(roles).isdisjoint(getattr(settings, each))
    }
    return frozenset(granted | {"look"} if granted else granted)


class Seal:
    """Seals data so that only the same secret opens it, and derives tokens."""

    def __init__(self, secret: bytes, *, clock: Callable[[], float] = time.time) -> None:
        """Create a seal.

        Args:
            secret: Of high entropy, of any length.
            clock: Unix seconds.
        """
        self._key = hmac.digest(secret, b"seawall console cookie", hashlib.sha256)
        self._token_key = hmac.digest(secret, b"seawall console token", hashlib.sha256)
        self._clock = clock

    def close(self, value: Struct, purpose: bytes) -> str:
        """Seal a value, as text for a cookie.

        Args:
            value: Is encoded as JSON.
            purpose: Only `open` with the same one opens it.
        """
        nonce = os.urandom(_NONCE_BYTES)
        # Not before the first login: it takes 6 MB of a worker.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        sealed = AESGCM(self._key).encrypt(nonce, msgspec.json.encode(value), purpose)
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def open(self, text: str, kind: type[T], purpose: bytes) -> T | None:
        """Return what was sealed; None if it was not sealed with this secret for this purpose."""
        if len(text) > 8_192:
            return None
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            opened = AESGCM(self._key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], purpose)
            return msgspec.json.decode(opened, type=kind)
        except (ValueError, InvalidTag, msgspec.MsgspecError):
            return None

    def login(
        self, principal: Principal, seconds: float, *, address: str = "", agent: str = ""
    ) -> str:
        """The session cookie of a principal.

        Args:
            principal: Roles beyond what a cookie has room for are left out.
            seconds: How long it is valid.
            address: From which it is made.
            agent: The browser, as it calls itself.
        """
        now = self._clock()
        roles: list[str] = []
        room = _MAX_ROLE_CHARACTERS
        for role in principal.roles:
            room -= len(role.encode()) + 3
            if room >= 0:
                roles.append(role)
        login = Login(
            principal.tenant,
            principal.subject,
            tuple(roles),
            now + seconds,
            secrets.token_urlsafe(12),
            now,
            address[:_MAX_ADDRESS_CHARACTERS],
            agent[:_MAX_AGENT_CHARACTERS],
        )
        return self.close(login, b"session")

    def read_login(self, cookie: str) -> Login | None:
        """Return the login of a session cookie; None if it is forged or has expired."""
        login = self.open(cookie, Login, b"session")
        return None if login is None or login.expires_at <= self._clock() else login

    def token(self, login: str) -> str:
        """The token against forged requests; `login` is the id of the login, empty without one."""
        digest = hmac.digest(self._token_key, login.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:18]).decode()


def console_secret(
    settings: ConsoleSettings, environment: Mapping[str, str], shared: Path | None
) -> bytes:
    """The secret of the seal: the configured one, else a random one that all workers share.

    Args:
        settings: Name the variable of the secret.
        environment: Has the secret.
        shared: A folder of the workers of this server; None for a process by itself.

    Raises:
        ConfigError: The configured variable has no secret of sufficient length.
    """
    if settings.secret_env:
        secret = environment.get(settings.secret_env, "")
        if len(secret) < _MIN_SECRET_CHARACTERS:
            raise ConfigError(
                f"console.secret_env: {settings.secret_env} must have {_MIN_SECRET_CHARACTERS} "
                "characters or more; openssl rand -base64 32 makes some"
            )
        return secret.encode("utf-8", "surrogateescape")
    made = secrets.token_bytes(32)
    if shared is None:
        return made
    path = shared / "console.key"
    descriptor, name = tempfile.mkstemp(dir=shared)  # for this user only
    new = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(made)
    try:
        path.hardlink_to(new)  # atomic: the first worker's is that of all
    except FileExistsError:
        return path.read_bytes()
    finally:
        new.unlink(missing_ok=True)
    return made

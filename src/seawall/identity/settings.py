"""Settings of authentication: the section `[identity]`."""

from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

__all__ = ["ApiKeySettings", "IdentitySettings", "JwtSettings", "check_name", "claimed_roles"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_NAME_CHARACTERS = 256
_MAX_ROLES = 64
_MAX_ROLE_CHARACTERS = 128

_Name = Annotated[str, Meta(min_length=1, max_length=_MAX_NAME_CHARACTERS)]


def check_name(value: object) -> str:
    """Return the value if it is a valid name of a tenant or a subject.

    Valid are 1 to 256 printable characters: no NUL, no other control character, no line break, no
    lone surrogate.

    Raises:
        ValueError: It is not valid.
    """
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= _MAX_NAME_CHARACTERS
        or not value.isprintable()
    ):
        raise ValueError(f"must be 1 to {_MAX_NAME_CHARACTERS} printable characters")
    return value


def claimed_roles(value: object) -> tuple[str, ...]:
    """The roles in a claim: a list of names, or names with spaces between them.

    None, unless all of them are valid: at most 64 names of 1 to 128 printable characters.

    Args:
        value: The claim; None if there is none.
    """
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or len(names) > _MAX_ROLES:
        return ()
    valid = all(_is_role(each) for each in names)
    return tuple(dict.fromkeys(names)) if valid else ()


def _is_role(name: object) -> bool:
    return isinstance(name, str) and 1 <= len(name) <= _MAX_ROLE_CHARACTERS and name.isprintable()


class JwtSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The issuer whose tokens are accepted. Exactly one of jwks_url and jwks_file is set.

    Attributes:
        issuer: The claim `iss` of every token.
        audience: One that every token must be for; empty accepts any.
        jwks_url: Where the issuer publishes its key set.
        jwks_file: A file with the key set.
        ca_file: Authorities that are trusted for `jwks_url`; empty for those of the system.
        leeway_seconds: Tolerated difference between the issuer's clock and this one's.
        tenant: The tenant of all subjects; if empty, it is read from `tenant_claim`.
        tenant_claim: Name of a claim, or a dotted path.
        subject_claim: Name of a claim, or a dotted path.
        roles_claim: Name of a claim, or a dotted path; of a list of roles, or of roles with spaces
            between them. A token without it, or with anything else in it, grants no roles.
        max_age_seconds: How long fetched keys are fresh.
        stale_seconds: How long they are used beyond that while the provider cannot be reached.
        cooldown_seconds: Shortest time between two fetches, and how often a file is read.
    """

    issuer: _Name
    audience: Annotated[str, Meta(max_length=_MAX_NAME_CHARACTERS)] = ""
    jwks_url: str = ""
    jwks_file: str = ""
    ca_file: str = ""
    leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 30.0
    tenant: str = ""
    tenant_claim: _Name = "tenant"
    subject_claim: _Name = "sub"
    roles_claim: _Name = "roles"
    max_age_seconds: Annotated[float, Meta(gt=0)] = 600.0
    stale_seconds: Annotated[float, Meta(ge=0)] = 86_400.0
    cooldown_seconds: Annotated[float, Meta(gt=0)] = 10.0

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if bool(self.jwks_url) == bool(self.jwks_file):
            raise ValueError("set exactly one of jwks_url and jwks_file")
        if self.jwks_url and not _is_safe(self.jwks_url):
            raise ValueError("jwks_url must be https; http is for this machine only")
        if self.ca_file and not self.jwks_url.startswith("https:"):
            raise ValueError("ca_file has no effect: jwks_url is not https")
        if self.tenant:
            _check_field("tenant", self.tenant)


class ApiKeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The owner of an API key, of which only the SHA-256 digest is configured, in hexadecimal.

    Attributes:
        sha256: The digest.
        tenant: The owner's tenant.
        subject: The owner.
        roles: What the key grants.
    """

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    tenant: str
    subject: str
    roles: Annotated[tuple[str, ...], Meta(max_length=_MAX_ROLES)] = ()

    def __post_init__(self) -> None:
        """Check the names as those in tokens are checked."""
        _check_field("tenant", self.tenant)
        _check_field("subject", self.subject)
        if not all(map(_is_role, self.roles)):
            raise ValueError(f"roles must be of 1 to {_MAX_ROLE_CHARACTERS} printable characters")


class IdentitySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The accepted credentials; none, unless one is set.

    Attributes:
        anonymous: Accept requests without a credential, from this machine only, as far as that
            can be detected.
        jwt: Accept tokens of this issuer.
        api_keys: Accept these keys; at most 1,000.
    """

    anonymous: bool = False
    jwt: JwtSettings | None = None
    api_keys: Annotated[tuple[ApiKeySettings, ...], Meta(max_length=1_000)] = ()

    def __post_init__(self) -> None:
        """Check that each key has one owner."""
        if len({each.sha256 for each in self.api_keys}) < len(self.api_keys):
            raise ValueError("api_keys: the same sha256 is listed twice")

    @property
    def warning(self) -> str:
        """A warning to log when a server starts with these settings; empty for none."""
        if self.anonymous:
            return (
                "identity.anonymous is true: every program and every user of this machine may run "
                "turns without a credential, and so may anyone whose requests reach this server "
                "through a proxy or tunnel on this machine that hides where they came from, which "
                "cannot be detected. Do not put a proxy in front of this server"
            )
        if self.jwt is None and not self.api_keys:
            return (
                "the configuration has no section [identity]: every request is answered with 401; "
                "add [[identity.api_keys]] (see seawall keys new), [identity.jwt], or "
                "anonymous = true to try things out on this machine"
            )
        return ""


def _check_field(field: str, value: str) -> None:
    try:
        check_name(value)
    except ValueError as error:
        raise ValueError(f"{field} {error}") from error


def _is_safe(url: str) -> bool:
    """Whether the key set cannot be replaced on its way here."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)

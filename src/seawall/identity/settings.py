"""What can be configured about identity."""

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["ApiKeySettings", "IdentitySettings", "JwtSettings"]

_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class JwtSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose tokens are trusted. Exactly one of jwks_url and jwks_file.

    audience: one that a token must be meant for; empty accepts any.
    tenant: the tenant of all subjects; else it is read from tenant_claim, a dotted path.
    max_age_seconds: how long fetched keys are taken for current. stale_seconds: how long they
    are used beyond that while the provider cannot be reached. cooldown_seconds: the shortest
    time between two fetches.
    """

    issuer: _Name
    audience: str = ""
    jwks_url: str = ""
    jwks_file: str = ""
    leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 30.0
    tenant: str = ""
    tenant_claim: _Name = "tenant"
    subject_claim: _Name = "sub"
    max_age_seconds: Annotated[float, Meta(gt=0)] = 600.0
    stale_seconds: Annotated[float, Meta(ge=0)] = 86_400.0
    cooldown_seconds: Annotated[float, Meta(gt=0)] = 10.0


class ApiKeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose an API key is; the key itself is nowhere, only its SHA-256 in hexadecimal."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    tenant: _Name
    subject: _Name


class IdentitySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may come in. Nobody, unless something is set here.

    anonymous: requests without a credential, from this very machine only.
    """

    anonymous: bool = False
    jwt: JwtSettings | None = None
    api_keys: tuple[ApiKeySettings, ...] = ()

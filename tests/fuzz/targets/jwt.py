"""Tokens: only a valid token signed by the issuer yields a principal."""

import asyncio
import base64
import json
from functools import cache

from seawall.errors import IdentityUnavailable, Unauthenticated
from seawall.identity import Authenticator, Bearer
from seawall.identity.authenticator import build_authenticator
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.turn import Principal
from tests.fuzz.targets import ensure
from tests.issuer import AUDIENCE, ISSUER, Issuer

__all__ = ["SEEDS", "one_input"]

_FAR = 4_102_444_800  # 2100-01-01


@cache
def _issuer() -> Issuer:
    issuer = Issuer()
    for kid, algorithm in (("rsa", "RS256"), ("curve", "ES256"), ("edwards", "EdDSA")):
        issuer.add(kid, algorithm)
    return issuer


@cache
def _authenticator() -> Authenticator:
    async def fetch(_: str, __: float) -> bytes:
        return _issuer().key_set()

    jwt = JwtSettings(
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks_url="https://issuer.example/keys",
        max_age_seconds=1e12,
        cooldown_seconds=1e12,
    )
    made = build_authenticator(IdentitySettings(jwt=jwt), fetch)
    asyncio.run(made.warm())
    return made


@cache
def _tokens() -> tuple[str, ...]:
    """All that the issuer has signed."""
    return tuple(_issuer().token(kid=kid, exp=_FAR) for kid in ("rsa", "curve", "edwards"))


def one_input(data: bytes) -> None:
    """Present the bytes as a token.

    Raises:
        AssertionError: A principal was accepted that the issuer has not signed.
    """
    token = data.decode("utf-8", "surrogateescape")
    authenticator = _authenticator()
    claimed = authenticator.unverified_principal(Bearer(token))
    try:
        verified = authenticator.authenticate_now(Bearer(token))
    except (Unauthenticated, IdentityUnavailable) as refused:
        ensure(len(token) < 8 or token not in str(refused), "the token is repeated")
        return
    if verified is not None:  # None: a key would have to be fetched for it
        signed = {each.rpartition(".")[0] for each in _tokens()}
        ensure(token.rpartition(".")[0] in signed, "not signed by the issuer")
        ensure(claimed == verified == Principal("acme", "ada"), "of another principal")


def _unsigned(header: dict[str, object]) -> bytes:
    parts = (header, _issuer().claims(exp=_FAR))
    encoded = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts]
    return b".".join([*encoded, b""])


SEEDS: list[bytes] = [
    b"",
    b"..",
    b"a.b.c",
    b"sw_key",
    *(each.encode() for each in _tokens()),
    _unsigned({"alg": "none", "kid": "rsa"}),
    _unsigned({"alg": "HS256", "kid": "curve"}),
    _unsigned({"alg": "RS256", "kid": "rsa", "crit": ["exp"]}),
]

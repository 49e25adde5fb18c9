"""Key sets as fetched from an issuer."""

from seawall.identity.jwks import parse_key_set

__all__ = ["SEEDS", "one_input"]

_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"  # RFC 8037, appendix A.2
SEEDS = [
    b'{"keys":[]}',
    b'{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"%b"}]}' % _X.encode(),
    b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"%b","key_ops":["sign"]},{"kty":"oct","k":"AA"}]}'
    % _X.encode(),
    b'{"keys":[{"kty":"RSA","kid":"r","alg":"RS256","e":"AQAB","n":"AQAB"}]}',
    b'{"keys":[{"kty":"RSA","kid":"r","e":"","n":"%b"}]}' % (b"_" * 344),
    b'{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},null,7,{"kty":null}]}',
    b"\xff\xfe[",
]


def one_input(data: bytes) -> None:
    """Either a set of keys or a ValueError; every key has one known algorithm."""
    try:
        keys = parse_key_set(data)
    except ValueError:
        return
    known = ({"RS256"}, {"ES256"}, {"EdDSA", "Ed25519"})
    if not all(key.algorithms in known for key in keys.values()):
        raise AssertionError(f"a key of an unknown algorithm out of {data!r}")

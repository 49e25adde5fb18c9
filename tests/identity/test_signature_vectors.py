"""Signatures that others have made, most of them to deceive: Wycheproof's and NIST's vectors.

Each is checked through a key set, as a provider would publish it, with the cryptographic library
and without it (`light`).
"""

import base64
import json
import re
from collections import Counter
from typing import Any

import pytest

from seawall.identity.jwks import parse_key_set
from tests.parts import require, signature_vectors


def accepted(key: dict[str, str], signature: bytes, signed: bytes) -> bool | None:
    """Whether a signature is accepted, or None if the key is not; the same in both ways."""
    document = json.dumps({"keys": [key]}).encode()
    found = set()
    for light in (False, True):
        usable = parse_key_set(document, light=light).get("")
        found.add(None if usable is None else usable.check(signature, signed))
    (only,) = found
    return only


def rsa(modulus: str, exponent: str) -> dict[str, str]:
    return {"kty": "RSA", "n": _encoded(modulus), "e": _encoded(exponent)}


def _encoded(number: str, size: int = 0) -> str:
    value = int(number, 16)
    octets = value.to_bytes(size or (value.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def groups(name: str) -> list[dict[str, Any]]:
    require(signature_vectors.missing())
    read: list[dict[str, Any]] = json.loads(signature_vectors.path(name).read_text())["testGroups"]
    return read


@pytest.mark.parametrize("name", signature_vectors.WYCHEPROOF_RSA)
def test_wycheproof_rsa(name: str) -> None:
    """Accepted is what is valid for SHA-256 and PKCS #1 1.5, by keys of 2,048 bits and more."""
    seen: Counter[bool | None] = Counter()
    for group in groups(name):
        public = group.get("publicKey") or group["privateKey"]
        key = rsa(public["modulus"], public["publicExponent"])
        for each in group["tests"]:
            found = accepted(key, bytes.fromhex(each["sig"]), bytes.fromhex(each["msg"]))
            seen[found] += 1
            if group["keySize"] < 2_048:
                assert found is None
            elif {"WrongHash", "WrongPrimitive"} & set(each["flags"]):
                continue  # made with another hash, or by other rules: perhaps with ours
            elif group["sha"] != "SHA-256" or "_pss_" in name or "MissingNull" in each["flags"]:
                assert found is False, each
            else:
                assert found is (each["result"] != "invalid"), each
    assert seen.total() > 20


def test_wycheproof_ecdsa_and_ed25519() -> None:
    seen: Counter[bool | None] = Counter()
    for name in (signature_vectors.WYCHEPROOF_EC, signature_vectors.WYCHEPROOF_ED25519):
        for group in groups(name):
            public = group["publicKey"]
            if "wx" in public:
                point = {each: _encoded(public[f"w{each}"], 32) for each in "xy"}
                key = {"kty": "EC", "crv": "P-256", **point}
            else:
                key = {"kty": "OKP", "crv": "Ed25519", "x": _encoded(public["pk"], 32)}
            for each in group["tests"]:
                found = accepted(key, bytes.fromhex(each["sig"]), bytes.fromhex(each["msg"]))
                if each["result"] != "acceptable":  # Ed25519 keys that no provider publishes
                    assert found is (each["result"] == "valid"), each
                    seen[found] += 1
    assert seen[True] > 200
    assert seen[False] > 100


def test_nist_rsa() -> None:
    """Messages, keys, signatures and paddings that were changed (FIPS 186-3, SigVer).

    The file lacks zeros at the begin of numbers, messages of 128 bytes among them.
    """
    require(signature_vectors.missing())
    seen: Counter[bool | None] = Counter()
    values: dict[str, str] = {}
    for line in signature_vectors.path(signature_vectors.NIST).read_text().splitlines():
        if not (read := re.match(r"(\w+) = (\w+)", line)):
            continue
        values[read[1]] = read[2]
        if read[1] == "Result" and values["SHAAlg"] == "SHA256":
            key = rsa(values["n"], values["e"])
            signature = bytes.fromhex(values["S"].zfill(len(values["n"])))
            found = accepted(key, signature, bytes.fromhex(values["Msg"].zfill(256)))
            weak = int(values["n"], 16).bit_length() < 2_048
            assert found is (None if weak else values["Result"] == "P"), values
            seen[found] += 1
    assert all(seen[each] for each in (True, False, None))

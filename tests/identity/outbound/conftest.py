"""A real authorization server, shared by the tests of this folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwk

from tests.identity.outbound.provider import Provider, client, running_provider
from tests.issuer import Issuer

KEYS = {"RS256": "RSA", "ES256": "P-256", "EdDSA": "Ed25519"}


@pytest.fixture(scope="session")
def callers() -> Issuer:
    """Signs the tokens that callers of this server have."""
    issuer = Issuer()
    issuer.add("one")
    return issuer


@pytest.fixture(scope="session")
def private_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A client's private keys by algorithm: PEM files, with their key sets beside them."""
    folder = tmp_path_factory.mktemp("keys")
    issuer = Issuer()
    files = {}
    for algorithm in KEYS:
        issuer.add(algorithm, algorithm)
        key, _ = issuer.keys[algorithm]
        private: Any = key.get_op_key("sign")
        files[algorithm] = folder / f"{algorithm}.pem"
        files[algorithm].write_bytes(
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        public = key.as_dict(private=False)
        files[algorithm].with_suffix(".json").write_text(json.dumps(public))
    assert isinstance(issuer.keys["RS256"][0], jwk.RSAKey)
    return files


@pytest.fixture(scope="session")
def provider(callers: Issuer, private_keys: dict[str, Path]) -> Iterator[Provider]:
    """oidc-provider."""
    clients = [client("basic"), client("post", "client_secret_post")]
    for algorithm, file in private_keys.items():
        public = json.loads(file.with_suffix(".json").read_text())
        each = client(
            f"signs-{algorithm}",
            "private_key_jwt",
            jwks={"keys": [public]},
            token_endpoint_auth_signing_alg=algorithm,
        )
        del each["client_secret"]
        clients.append(each)
    clients.append(
        client("web", grant_types=["authorization_code", "refresh_token"])
        | {"redirect_uris": ["https://shop.example/callback"], "response_types": ["code"]}
    )
    with running_provider(clients=clients, subject_keys=callers.key_set()) as provider:
        yield provider

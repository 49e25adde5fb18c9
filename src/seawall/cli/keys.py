"""`seawall keys`: API keys, and tokens for tests."""

import argparse
import json
import sys
import time
from pathlib import Path

from seawall.cli.arguments import Commands, Parser, add_group, add_json, integer, name

__all__ = ["add_parser"]


def add_parser(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(subparsers, "keys", "create API keys, and tokens for tests")
    new = commands.add_parser(
        "new",
        help="create an API key and the lines that configure it",
        description=(
            "Create an API key. The key is printed to standard error, once; the lines that "
            "configure it, which have only its digest, to standard output: append them to "
            "seawall.toml."
        ),
    )
    new.add_argument("--tenant", required=True, type=name, help="tenant that the key belongs to")
    new.add_argument("--subject", required=True, type=name, help="subject that the key belongs to")
    new.add_argument(
        "--role",
        action="append",
        default=[],
        type=name,
        help="role that the key grants; may be repeated (default: none)",
    )
    add_json(new, "print key and digest as one JSON object on standard output")
    new.set_defaults(run=_new)
    token = commands.add_parser(
        "token",
        help="create a signed token, for tests only",
        description=(
            "Create a signed JSON Web Token for tests and local use, without an identity provider. "
            "The token is printed to standard output; the lines of seawall.toml that accept such "
            "tokens to standard error. The first call creates FOLDER with a private key and the "
            "key set of [identity.jwt]. FOR TESTS ONLY: read access to the private key is enough "
            "to sign a token for every tenant and subject. Do not deploy it."
        ),
    )
    token.add_argument("--tenant", required=True, type=name, help="claim tenant of the token")
    token.add_argument("--subject", required=True, type=name, help="claim sub of the token")
    token.add_argument(
        "--role",
        action="append",
        default=[],
        type=name,
        help="role in the claim roles; may be repeated (default: none)",
    )
    token.add_argument(
        "--folder",
        type=Path,
        default=Path("test-keys"),
        metavar="FOLDER",
        help="private key and key set; created if it is missing (default: %(default)s)",
    )
    token.add_argument(
        "--issuer", default="seawall-test", type=name, help="claim iss (default: %(default)s)"
    )
    token.add_argument("--audience", default="", help="claim aud (default: none)")
    token.add_argument(
        "--seconds",
        type=integer(1, 10**9),
        default=3_600,
        metavar="N",
        help="how long the token is valid (default: %(default)s)",
    )
    add_json(token, "print token, expiry and files as one JSON object on standard output")
    token.set_defaults(run=_token)


def _new(arguments: argparse.Namespace) -> int:
    from seawall.identity.authenticator import new_key  # noqa: PLC0415 - only what is needed

    key, digest = new_key()
    entry: dict[str, object] = {
        "sha256": digest,
        "tenant": arguments.tenant,
        "subject": arguments.subject,
    }
    if arguments.role:
        entry["roles"] = arguments.role
    if arguments.json:
        sys.stdout.write(json.dumps({"key": key, **entry}) + "\n")
        return 0
    sys.stderr.write(f"The key, which is shown only now: {key}\n")
    sys.stdout.write("[[identity.api_keys]]\n" + _toml(entry))
    return 0


def _token(arguments: argparse.Namespace) -> int:
    from seawall.identity.local_issuer import KEY_SET_FILE, LocalIssuer  # noqa: PLC0415 - likewise

    now = int(time.time())
    issuer = LocalIssuer.open(arguments.folder)
    token = issuer.token(
        issuer=arguments.issuer,
        subject=arguments.subject,
        tenant=arguments.tenant,
        audience=arguments.audience,
        issued_at=now,
        seconds=arguments.seconds,
        roles=arguments.role,
    )
    section: dict[str, object] = {"issuer": arguments.issuer}
    if arguments.audience:
        section["audience"] = arguments.audience
    section["jwks_file"] = str(arguments.folder / KEY_SET_FILE)
    if arguments.json:
        result = {"token": token, "expires_at": now + arguments.seconds, **section}
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    sys.stderr.write(
        f"For tests only: read access to {arguments.folder} is enough to sign a token for every\n"
        "tenant and subject. seawall.toml accepts such tokens with:\n\n"
        f"[identity.jwt]\n{_toml(section)}\n"
    )
    sys.stdout.write(token + "\n")
    return 0


def _toml(table: dict[str, object]) -> str:
    """Format as TOML; printable strings, and lists of them, are the same in JSON."""
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items()
    )

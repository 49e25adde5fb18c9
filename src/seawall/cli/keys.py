"""`seawall keys`: API keys."""

import argparse
import json
import sys

from seawall.identity.authenticator import new_key
from seawall.identity.settings import check_name

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("keys", help="make an API key")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    new = commands.add_parser(
        "new",
        help="make a key and the lines that configure it",
        description=(
            "Make an API key. The key goes to standard error, once; the lines that make it known, "
            "which hold only its hash, go to standard output: append them to seawall.toml."
        ),
    )
    new.add_argument("--tenant", required=True, type=_name, help="whose customers the key is for")
    new.add_argument("--subject", required=True, type=_name, help="who the key stands for")
    new.add_argument(
        "--json", action="store_true", help="key and hash as a JSON object on standard output"
    )
    new.set_defaults(run=_new)


def _name(value: str) -> str:
    try:
        return check_name(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _new(arguments: argparse.Namespace) -> int:
    key, digest = new_key()
    entry = {"sha256": digest, "tenant": arguments.tenant, "subject": arguments.subject}
    if arguments.json:
        sys.stdout.write(json.dumps({"key": key, **entry}) + "\n")
        return 0
    sys.stderr.write(f"The key, which is shown only now: {key}\n")
    # Of printable text, JSON's strings are TOML's.
    lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in entry.items())
    sys.stdout.write("[[identity.api_keys]]\n" + "\n".join(lines) + "\n")
    return 0

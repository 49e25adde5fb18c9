"""`seawall keys`: API keys."""

import argparse
import sys

from seawall.identity.api_keys import new_key

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("keys", help="make an API key")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    new = commands.add_parser(
        "new",
        help="make a key and the lines that configure it",
        description="Print a new API key, once, and the lines that make it known.",
    )
    new.add_argument("--tenant", required=True)
    new.add_argument("--subject", required=True)
    new.set_defaults(run=_new)


def _new(arguments: argparse.Namespace) -> int:
    key, digest = new_key()
    sys.stdout.write(
        f"# The key; it is shown only now: {key}\n"
        "[[identity.api_keys]]\n"
        f'sha256 = "{digest}"\n'
        f'tenant = "{arguments.tenant}"\n'
        f'subject = "{arguments.subject}"\n'
    )
    return 0

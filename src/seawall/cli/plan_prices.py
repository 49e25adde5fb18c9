"""`seawall plan prices`: show prices, and import them from AWS's published price lists."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.cli.arguments import Commands, Parser, add_group, add_json, plural, writable
from seawall.cli.stored import print_json
from seawall.errors import ConfigError
from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.plan.inputs.prices import Prices
    from seawall.plan.inputs.prices.importing import Imported

__all__ = ["add_commands"]

_OF_A_PLAN = ("workload", "daily", "spike", "duration", "trace", "measured", "check", "html")


def add_commands(subparsers: "Commands[Parser]") -> None:
    """Add the command."""
    commands = add_group(
        subparsers,
        "prices",
        "show prices, and import them from AWS's price lists",
        "Prices are dated files by region. See docs/plan.md.",
    )
    importing = commands.add_parser(
        "import",
        help="write a price file from AWS's published price lists",
        description="Read the offer files of services, JSON or CSV, such as https://pricing."
        "us-east-1.amazonaws.com/offers/v1.0/aws/AWSLambda/current/eu-west-1/index.csv, and write "
        "the prices of a region as a file for --prices. What the files lack stays as it is "
        "shipped, and is marked uncertain where it is another region's.",
    )
    importing.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="an offer file; may be gzipped"
    )
    importing.add_argument("--region", default="", metavar="NAME", help="such as eu-west-1")
    importing.add_argument(
        "--machine",
        action="append",
        default=[],
        metavar="TYPE",
        help="also import this EC2 machine, such as m8g.large; may be repeated",
    )
    importing.add_argument(
        "--out", type=Path, metavar="FILE", help="where it is written (default: standard output)"
    )
    importing.set_defaults(run=_alone(_import))
    showing = commands.add_parser(
        "show",
        help="list prices with their dates and sources",
        description="List the prices of a region, or of a file. Those that are older than 90 days "
        "are called stale, those that were not checked uncertain.",
    )
    showing.add_argument("--region", metavar="NAME", help="such as us-east-1 (the default)")
    showing.add_argument("--prices", type=Path, metavar="FILE", help="a price file")
    add_json(showing)
    showing.set_defaults(run=_alone(_show))


def _alone(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The command, refusing options of `seawall plan` before it, which would do nothing."""

    def refusing(arguments: argparse.Namespace) -> int:
        for name in _OF_A_PLAN:
            if getattr(arguments, name, None):
                raise ConfigError(f"--{name}: is not an option of seawall plan prices")
        return run(arguments)

    return refusing


def _import(arguments: argparse.Namespace) -> int:
    from seawall.plan.inputs.prices.importing import import_prices, price_file  # noqa: PLC0415

    out = None if arguments.out is None else writable(arguments.out, "--out")
    imported = import_prices(arguments.files, region=arguments.region, machines=arguments.machine)
    text = price_file(imported)
    if out is None:
        sys.stdout.write(printable(text, keep="\n"))
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"--out: {arguments.out} cannot be written: {error.strerror}"
            ) from None
    summary = sys.stderr if out is None else sys.stdout
    summary.write(printable(_summary(imported, arguments.out), keep="\n"))
    return 0


def _summary(imported: "Imported", out: Path | None) -> str:
    prices = imported.prices
    read = ", ".join(f"{each.code} of {each.date}" for each in imported.offers)
    lines = [f"{plural(len(imported.found), 'price')} of {prices.region} from {read}"]
    if imported.kept:
        shipped = sum(price.uncertain for price in prices.items.values())
        lines.append(f"as shipped ({shipped} uncertain):")
        lines += [f"  {name}: {why}" for name, why in imported.kept.items()]
    if out is not None:
        lines.append(f"written: {out}; use it with seawall plan --prices {out}")
    return "\n".join(lines) + "\n"


def _show(arguments: argparse.Namespace) -> int:
    from msgspec import to_builtins  # noqa: PLC0415

    from seawall.plan.inputs.prices import load_prices, read_prices, stale_days  # noqa: PLC0415

    if arguments.prices is not None and arguments.region is not None:
        raise ConfigError("--prices: the file has its region; it excludes --region")
    if arguments.prices is not None:
        prices = read_prices(arguments.prices)
    else:
        prices = load_prices(arguments.region or "us-east-1")
    stale = stale_days(prices, datetime.now(UTC).date())
    if arguments.json:
        found = to_builtins(prices)
        print_json({"stale": stale is not None} | found)
        return 0
    sys.stdout.write(printable(_table(prices, stale), keep="\n"))
    return 0


def _table(prices: "Prices", stale: int | None) -> str:
    age = "" if stale is None else f"; STALE: {stale} days old"
    lines = [f"{prices.region}, {prices.currency}, prices of {prices.date}{age}", ""]
    width = max(map(len, prices.items))
    for name, price in prices.items.items():
        flag = "  uncertain" if price.uncertain else ""
        amount = f"{price.price:.10f}".rstrip("0").rstrip(".")
        lines.append(f"{name:{width}}  {amount:>12} a {price.unit}{flag}  {price.source}")
    return "\n".join(lines) + "\n"

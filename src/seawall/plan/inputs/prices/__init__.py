"""Prices: dated files by region, or a file of the user, with discounts.

A file is TOML: `date`, `region`, `currency`, and a table `items."NAME"` for each item that `needed`
names, with `price`, `unit` and `source`; `model.input_tokens` and `model.output_tokens` replace the
list prices of a model; machines (`ec2.…`) also have `vcpus`, `memory_gb` and
`architecture`. With `base = "us-east-1"` it contains only what differs from that region's file.
"""

import math
from collections.abc import Iterable
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.notation import parse_share, read_document

__all__ = [
    "DISCOUNTS",
    "STALE_DAYS",
    "Price",
    "Prices",
    "cost_of",
    "load_cloud_prices",
    "load_prices",
    "needed",
    "parse_discounts",
    "read_prices",
    "regions",
    "stale_days",
]

_HERE = Path(__file__).parent

STALE_DAYS = 90  # after which prices should be looked at again

# Prefixes of the items that a discount applies to.
DISCOUNTS = {
    "lambda": ("lambda.gb_seconds", "lambda.provisioned"),
    "ec2": ("ec2.",),
    "fargate": ("fargate.",),
    "spot": ("ec2.",),
}

_NEEDED = (
    "lambda.gb_seconds.{arch}",
    "lambda.requests",
    "lambda.provisioned_gb_seconds.{arch}",
    "lambda.provisioned_duration.{arch}",
    "lambda.snapstart_cache",
    "lambda.snapstart_restore",
    "lambda.managed_fee",
    "lambda.managed_requests",
    "eks.control_plane",
    "fargate.vcpu_hours.x86_64",
    "fargate.gb_hours.x86_64",
    "ec2_surplus.vcpu_hours",
    "ipv4.hours",
    "lambda.streamed_gb",
    "alb.hours",
    "alb.lcu_hours",
    "api_gateway.http",
    "api_gateway.rest",
    "nat.hours",
    "nat.gb",
    "vpc_endpoint.hours",
    "vpc_endpoint.gb",
    "ebs.gp3_gb_months",
    "logs.gb",
    "dynamodb.write_units",
    "dynamodb.read_units",
    "egress.gb",
)


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price of one unit.

    Attributes:
        price: In the file's currency.
        unit: Such as `GB-s`.
        source: Where it is published.
        uncertain: Whether it should be verified.
        vcpus: Of a machine.
        memory_gb: Of a machine.
        architecture: Of a machine.
        tiers: From a quantity in a month on, another price: pairs of both, rising in the first.
        baseline: Of a burstable machine, the share of its vCPUs that it may use all the time; above
            it, on average, surplus credits are charged. 0: not burstable.
    """

    price: float
    unit: str
    source: str
    uncertain: bool = False
    tiers: tuple[tuple[float, float], ...] = ()
    vcpus: float = 0.0
    memory_gb: float = 0.0
    architecture: str = ""
    baseline: float = 0.0


def cost_of(price: Price, quantity: float) -> float:
    """The cost of a quantity in a month, by the tiers of a price."""
    steps = [(0.0, price.price), *price.tiers]
    ends = [start for start, _ in price.tiers] + [math.inf]
    return sum(
        each * max(0.0, min(quantity, end) - start)
        for (start, each), end in zip(steps, ends, strict=True)
    )


class Prices(Struct, frozen=True, kw_only=True):
    """Prices of a region on a date. discounts: shares, by the names in DISCOUNTS."""

    date: str
    region: str
    currency: str
    items: dict[str, Price]
    file: str
    discounts: dict[str, float] = field(default_factory=dict)

    def of(self, name: str, *, spot: bool = False) -> Price:
        """The price of an item after discounts. Raises ConfigError, naming it, if it is missing."""
        found = self.items.get(name)
        if found is None:
            raise ConfigError(f"{self.file}: items.{name}: missing")
        factor = 1.0
        for what, share in self.discounts.items():
            if (what == "spot") == spot and name.startswith(DISCOUNTS[what]):
                factor *= 1.0 - share
        if factor == 1.0:
            return found
        tiers = tuple((start, each * factor) for start, each in found.tiers)
        return structs.replace(found, price=found.price * factor, tiers=tiers)

    def machines(self, architecture: str) -> list[str]:
        """Types of machines with a price, the cheapest first."""
        found = [
            (each.price, name.removeprefix("ec2."))
            for name, each in self.items.items()
            if name.startswith("ec2.") and each.architecture == architecture
        ]
        return [name for _, name in sorted(found)]


def stale_days(prices: Prices, today: date) -> int | None:
    """How many days old the prices are, if that is more than `STALE_DAYS`; None: they are not.

    A date that is not in ISO 8601 is not compared.
    """
    try:
        age = (today - date.fromisoformat(prices.date)).days
    except ValueError:
        return None
    return age if age > STALE_DAYS else None


def needed(architecture: str) -> list[str]:
    """Names of the items that a plan needs, machines aside."""
    return [name.format(arch=architecture) for name in _NEEDED]


def regions() -> list[str]:
    """Regions with a price file."""
    return sorted(path.stem for path in _HERE.glob("*.toml"))


def load_prices(region: str) -> Prices:
    """Prices of a region. Raises ConfigError, naming the known ones, if there is no file."""
    if region not in regions():
        known = ", ".join(regions())
        raise ConfigError(f"region: no prices of {region!r}; known: {known}; or give --prices FILE")
    return _parsed(read_document(_HERE / f"{region}.toml"), f"prices of {region}")


@cache
def load_cloud_prices(cloud: str, near: str) -> Prices | None:
    """Prices of another cloud in its region next to one of AWS. None: there is no file."""
    for path in sorted((_HERE / cloud).glob("*.toml")):
        document = read_document(path)
        if document.pop("near", "") == near:
            return _parsed(document, f"prices of {cloud}, {path.stem}")
    return None


def read_prices(path: Path, *, architecture: str = "arm64") -> Prices:
    """Read prices from a file. Raises ConfigError, naming file and item."""
    document = read_document(path)
    base = document.pop("base", None)
    if base is not None:
        under = load_prices(str(base))
        document = {
            "date": under.date,
            "region": under.region,
            "currency": under.currency,
        } | document
    found = _parsed(document, str(path))
    if base is not None:
        found = structs.replace(found, items=under.items | found.items)
    for name in needed(architecture):
        found.of(name)
    if not found.machines(architecture):
        raise ConfigError(f"{path}: items.ec2.TYPE: missing: no machine of {architecture}")
    return found


def _parsed(document: dict[str, Any], name: str) -> Prices:
    for key in ("date", "region", "currency", "items"):
        if key not in document:
            raise ConfigError(f"{name}: {key}: missing")
    table = document["items"]
    if not isinstance(table, dict):
        raise ConfigError(f"{name}: items: is not a table")
    items: dict[str, Price] = {}
    for key, value in table.items():
        try:
            items[key] = msgspec.convert(value, Price)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name}: items.{key}: {error}") from None
        amount = items[key].price
        if not (math.isfinite(amount) and amount >= 0):
            raise ConfigError(f"{name}: items.{key}.price: {amount:g} is not a price")
        starts = [0.0, *(start for start, _ in items[key].tiers)]
        if any(later <= start for start, later in pairwise(starts)):
            raise ConfigError(f"{name}: items.{key}.tiers: do not rise")
        if key.startswith("ec2.") and not (items[key].vcpus > 0 and items[key].memory_gb > 0):
            raise ConfigError(f"{name}: items.{key}: vcpus and memory_gb are missing")
    date, region, currency = (str(document[key]) for key in ("date", "region", "currency"))
    return Prices(date=date, region=region, currency=currency, items=items, file=name)


def parse_discounts(texts: Iterable[str]) -> dict[str, float]:
    """Parse discounts such as `ec2=28%`, `ec2=28`, `spot=0.6` into shares by name.

    Raises:
        ConfigError: One is unknown, or not a share.
    """
    shares: dict[str, float] = {}
    for text in texts:
        what, _, share = text.partition("=")
        if what not in DISCOUNTS:
            raise ConfigError(f"discount: {what!r} is unknown; known: {', '.join(DISCOUNTS)}")
        shares[what] = parse_share(share, f"discount: {what}")
        if shares[what] == 1:
            raise ConfigError(f"discount: {what}: 100 per cent leaves no price")
    return shares

"""Prices of a region from AWS's published price lists, as a price file.

What the lists do not have stays as it was, marked uncertain where it is another region's.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.prices import Price, Prices, load_prices, regions
from seawall.plan.inputs.prices.price_list import Listed, Offer, read_offer
from seawall.plan.inputs.prices.usage_types import ITEMS, item_of

__all__ = ["Imported", "import_prices", "price_file"]


_LINUX = {
    "operatingsystem": "Linux",
    "tenancy": "Shared",
    "preinstalledsw": "NA",
    "capacitystatus": "Used",
}
# Shares of its vCPUs that a burstable machine may use all the time:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-credits-baseline-concepts.html
_BASELINES = {
    "nano": 0.05, "micro": 0.1, "small": 0.2, "medium": 0.2, "large": 0.3, "xlarge": 0.4,
    "2xlarge": 0.4,
}  # fmt: skip
_LARGEST = 100_000.0  # vCPUs, and GB, of a machine
_BURSTABLE = ("t3.", "t3a.", "t4g.")


class Imported(Struct, frozen=True):
    """Prices from price lists.

    Attributes:
        prices: Of the region, all that a plan needs.
        offers: The files that were read.
        found: Items whose price is from them.
        kept: Items that are as they were, and why.
    """

    prices: Prices
    offers: tuple[Offer, ...]
    found: tuple[str, ...]
    kept: dict[str, str]


def import_prices(
    paths: Sequence[Path], *, region: str = "", machines: Iterable[str] = ()
) -> Imported:
    """Read the prices of a region from offer files.

    Args:
        paths: Of any services.
        region: Such as `eu-west-1`. Empty: the one that the files have.
        machines: Types of EC2 machines beside those of the shipped prices.

    Raises:
        ConfigError: A file cannot be read, or the region is missing or ambiguous.
    """
    types = {*machines, *_shipped_machines()}

    def keep(attributes: dict[str, str]) -> bool:
        usage = attributes.get("usagetype", "")
        return item_of(usage, types) is not None and (
            not region or _region_of(attributes) in (region, "")
        )

    offers: list[Offer] = []
    listed: dict[str, list[tuple[Listed, Offer]]] = {}
    for path in paths:
        offer, products = read_offer(path, keep)
        offers.append(offer)
        for each in products:
            name = item_of(each.attributes["usagetype"], types)
            if name is not None and _fits(name, each.attributes):
                listed.setdefault(name, []).append((each, offer))
    there = {_region_of(each.attributes) for found in listed.values() for each, _ in found} - {""}
    if not listed:
        read = ", ".join(sorted({each.code for each in offers}))
        raise ConfigError(f"prices import: none of the products of {read} is an item of a plan")
    if not region and len(there) != 1:
        known = ", ".join(sorted(there)[:8]) or "none is named in the files"
        raise ConfigError(f"prices import: give --region; regions there: {known}")
    return _imported(region or min(there), offers, listed)


def _shipped_machines() -> set[str]:
    items = load_prices("us-east-1").items
    return {name.removeprefix("ec2.") for name in items if name.startswith("ec2.")}


def _region_of(attributes: Mapping[str, str]) -> str:
    return attributes.get("regioncode") or attributes.get("fromregioncode") or ""


def _fits(name: str, attributes: Mapping[str, str]) -> bool:
    """Whether a product has the other attributes of its item."""
    if not name.startswith("ec2."):
        return all(attributes.get(key) == value for key, value in ITEMS[name].attributes.items())
    return attributes.get("marketoption", "OnDemand") == "OnDemand" and all(
        attributes.get(key) == value for key, value in _LINUX.items()
    )


def _imported(
    region: str, offers: list[Offer], listed: dict[str, list[tuple[Listed, Offer]]]
) -> Imported:
    shipped = region in regions()
    base = load_prices(region if shipped else "us-east-1")
    items: dict[str, Price] = {}
    kept: dict[str, str] = {}
    currencies = set()
    for name, found in listed.items():
        amounts = {each.price for each, _ in found}
        if len(amounts) > 1:
            kept[name] = f"{len(amounts)} prices match: {', '.join(map(str, sorted(amounts)))}"
        elif not amounts or not max(amounts) > 0:
            kept[name] = "the price list has no price above 0"
        else:
            items[name] = _price(name, *found[0], base)
            currencies.add(found[0][0].currency)
    if len(currencies) > 1:
        raise ConfigError(f"prices import: different currencies: {', '.join(sorted(currencies))}")
    currency = next(iter(currencies), base.currency)
    if currency != base.currency and set(base.items) - set(items):
        missing = ", ".join(sorted(set(base.items) - set(items))[:8])
        raise ConfigError(f"prices import: in {currency}, and not in the price lists: {missing}")
    for name, price in base.items.items():
        if name not in items:
            kept.setdefault(name, "not in the price lists")
            note = f"{base.region}, {base.date}: {price.source}"
            items[name] = price if shipped else structs.replace(
                price, uncertain=True, source=note
            )  # fmt: skip
    order = [*base.items, *(name for name in items if name not in base.items)]
    prices = Prices(
        date=min(each.date for each in offers), region=region, currency=currency,
        items={name: items[name] for name in order}, file="AWS's price lists",
    )  # fmt: skip
    return Imported(prices, tuple(offers), tuple(name for name in order if name not in kept), kept)


def _price(name: str, listed: Listed, offer: Offer, base: Prices) -> Price:
    source = f"AWS's price list, {offer.code} {offer.version}, SKU {listed.sku}"
    if not name.startswith("ec2."):
        item = ITEMS[name]
        return Price(
            price=float(listed.price * item.many), unit=item.unit, source=source,
            tiers=tuple((float(at / item.many), float(each * item.many))
                        for at, each in listed.tiers),
        )  # fmt: skip
    attributes, machine = listed.attributes, name.removeprefix("ec2.")
    try:
        vcpus = float(attributes["vcpu"])
        memory = float(attributes["memory"].replace(",", "").removesuffix("GiB"))
    except (KeyError, ValueError):
        vcpus = memory = 0.0
    if not (0 < vcpus < _LARGEST and 0 < memory < _LARGEST):
        raise ConfigError(
            f"prices import: {offer.code}, SKU {listed.sku}: vcpu, memory: not numbers"
        )
    burstable = machine.startswith(_BURSTABLE)
    known = base.items.get(name)
    return Price(
        price=float(listed.price), unit="hour", source=source, vcpus=vcpus, memory_gb=memory,
        architecture="arm64" if "Graviton" in attributes.get("physicalprocessor", "") else "x86_64",
        baseline=known.baseline if known else
        _BASELINES.get(machine.partition(".")[2], 0.0) if burstable else 0.0,
    )  # fmt: skip


def price_file(imported: Imported) -> str:
    """The prices as a TOML file for `--prices`."""
    prices = imported.prices
    lines = [
        f"# Prices in {prices.region}, {prices.currency}, on demand, without free tiers.",
        "# Written by `seawall plan prices import` from AWS's price lists:",
        *(f"# {each.code} {each.version}, published {each.date}" for each in imported.offers),
        "# uncertain: not in these lists, and not checked.",
        f'date = "{prices.date}"',
        f"region = {_text(prices.region)}",
        f"currency = {_text(prices.currency)}",
    ]
    for name, price in prices.items.items():
        lines += ["", f"[items.{_text(name)}]"]
        lines += [f"{key} = {_value(value)}" for key, value in msgspec.to_builtins(price).items()
                  if value or key == "price"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """A value as TOML, in one line."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return format(Decimal(repr(value)).normalize(), "f")
        case list() | tuple():
            return f"[{', '.join(_value(each) for each in value)}]"
        case dict():
            pairs = (f"{_text(str(key))} = {_value(each)}" for key, each in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else f"\\{c}" if c in '"\\' else c
        for c in text
    )
    return f'"{escaped}"'

"""AWS's published price lists: the offer file of a service, as JSON or CSV.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/bulk-api-reading-price-list-files.html:
`https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/SERVICE/current/REGION/index.json` (or
`.csv`). JSON has `products` (by SKU, with attributes) and then `terms` (`OnDemand`, by SKU, with
price dimensions, which are tiers); CSV has a row for each price dimension. Files of EC2 are 300 MB
and more: they are read in bounded memory.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.inputs.compressed import unpacked
from seawall.plan.inputs.prices.json_stream import JsonStream

__all__ = ["Listed", "Offer", "read_offer"]

_LONGEST_LINE = 1_000_000
_MOST_KEPT = 100_000
_HIGHEST = 1_000_000_000  # price


class Offer(Struct, frozen=True):
    """What an offer file says of itself. date: of its publication."""

    code: str
    version: str
    date: str


class Listed(Struct, frozen=True):
    """A product of an offer with its on-demand price.

    Attributes:
        sku: Its number.
        attributes: By their names in lower case without punctuation, as `usagetype`;
            `productfamily` among them.
        price: Of a unit in the first tier that costs something; 0 if none does.
        tiers: After that one: from a quantity in a month on, another price.
        unit: Such as `Hrs`.
        currency: Such as `USD`.
    """

    sku: str
    attributes: dict[str, str]
    price: Decimal
    tiers: tuple[tuple[Decimal, Decimal], ...]
    unit: str
    currency: str


Keep = Callable[[dict[str, str]], bool]


def read_offer(path: Path, keep: Keep) -> tuple[Offer, list[Listed]]:
    """Read the products of an offer file that are wanted.

    Args:
        path: JSON or CSV, perhaps compressed with gzip.
        keep: Whether a product with these attributes is wanted.

    Raises:
        ConfigError: The file is not an offer file; file and field are named.
    """
    try:
        with path.open("rb") as file:
            opened = unpacked(file)
            json = opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
            opened.seek(0)
            with io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as text:
                return (_read_json if json else _read_csv)(text, keep, str(path))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: gzip: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8") from None


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _read_json(text: IO[str], keep: Keep, name: str) -> tuple[Offer, list[Listed]]:
    stream = JsonStream(text, name)
    head: dict[str, str] = {}
    kept: dict[str, dict[str, str]] = {}
    for key in stream.members():
        if key == "products":
            kept = _products(stream, keep, name)
        elif key == "terms":
            if "offerCode" not in head or not kept:
                break
            for terms in stream.members():
                if terms == "OnDemand":
                    found = list(_on_demand(stream, kept, name))
                    return _offer(head, name), found
                stream.value()
        else:
            value = stream.value()
            head |= {key: value} if isinstance(value, str) else {}
    return _offer(head, name), []


def _products(stream: JsonStream, keep: Keep, name: str) -> dict[str, dict[str, str]]:
    kept: dict[str, dict[str, str]] = {}
    for sku in stream.members():
        product = stream.value()
        attributes = product.get("attributes") if isinstance(product, dict) else None
        if not isinstance(attributes, dict):
            raise ConfigError(f"{name}: products.{sku[:40]}.attributes: missing")
        plain = {_plain(key): str(value) for key, value in attributes.items()}
        plain["productfamily"] = str(product.get("productFamily", ""))
        if keep(plain):
            kept[sku] = plain
            _check_kept(len(kept), name)
    return kept


def _on_demand(stream: JsonStream, kept: dict[str, dict[str, str]], name: str) -> Iterator[Listed]:
    for sku in stream.members():
        offers = stream.value()
        if sku not in kept:
            continue
        where = f"{name}: terms.OnDemand.{sku}"
        try:
            term = max(offers.values(), key=lambda each: str(each.get("effectiveDate", "")))
            tiers = [
                (each["beginRange"], each["unit"], *_only(each["pricePerUnit"]))
                for each in term["priceDimensions"].values()
            ]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ConfigError(f"{where}: no price dimensions") from None
        yield _listed(sku, kept[sku], tiers, where)


def _only(price: dict[str, Any]) -> tuple[str, str]:
    """Price and currency; a list has one currency."""
    ((currency, amount),) = price.items()
    return amount, currency


def _listed(
    sku: str, attributes: dict[str, str], tiers: Iterable[tuple[Any, Any, Any, Any]], where: str
) -> Listed:
    """A product by its tiers: begin, unit, price, currency."""
    found: dict[Decimal, tuple[Decimal, str, str]] = {}
    for begin, unit, amount, currency in tiers:
        try:
            start, price = Decimal(str(begin) or "0"), Decimal(str(amount))
        except InvalidOperation:
            raise ConfigError(f"{where}: {str(amount)[:40]!r} is not a price") from None
        if not (start.is_finite() and price.is_finite() and 0 <= price < _HIGHEST):
            raise ConfigError(f"{where}: {str(amount)[:40]} is not a price")
        if start not in found or price > found[start][0]:  # of two, the one that costs something
            found[start] = (price, str(unit), str(currency))
    if not found:
        raise ConfigError(f"{where}: no price dimensions")
    starts = sorted(found)
    first = next((at for at, start in enumerate(starts) if found[start][0] > 0), 0)
    price, unit, currency = found[starts[first]]
    later = tuple((start, found[start][0]) for start in starts[first + 1 :])
    return Listed(sku, attributes, price, later, unit, currency)


def _offer(head: dict[str, str], name: str) -> Offer:
    code = head.get("offerCode", "")
    if not code:
        raise ConfigError(
            f"{name}: offerCode: missing: not an offer file of AWS's price list; such as "
            "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AWSLambda/current/us-east-1/"
            "index.json"
        )
    date = head.get("publicationDate", "")[:10]
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise ConfigError(f"{name}: publicationDate: {date!r} is not a date")
    version = head.get("version", "")
    for field, value in (("offerCode", code), ("version", version)):
        if not re.fullmatch(r"[A-Za-z0-9]{0,64}", value):  # they are part of what is written
            raise ConfigError(f"{name}: {field}: {value[:40]!r} is not a name of AWS")
    return Offer(code, version, date)


def _check_kept(count: int, name: str) -> None:
    if count > _MOST_KEPT:
        raise ConfigError(f"{name}: more than {_MOST_KEPT:,} products that are wanted")


_HEAD = {"publicationdate": "publicationDate", "version": "version", "offercode": "offerCode"}
_FEW = 20  # lines before the head of the table, at most


def _read_csv(text: IO[str], keep: Keep, name: str) -> tuple[Offer, list[Listed]]:
    def lines() -> Iterator[str]:
        while line := text.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise ConfigError(f"{name}: a line of more than {_LONGEST_LINE:,} characters")
            yield line

    reader = csv.reader(lines())
    head: dict[str, str] = {}
    try:
        for row in reader:
            if row and row[0] == "SKU":
                break
            if len(row) == 2 and (known := _HEAD.get(_plain(row[0]))):
                head[known] = row[1]
            if reader.line_num > _FEW:
                break
        offer = _offer(head, name)
        columns = [_plain(each) for each in row]
        missing = {"sku", "termtype", "priceperunit", "usagetype", "currency"} - set(columns)
        if missing:
            raise ConfigError(f"{name}: column {min(missing)}: missing")
        return offer, _rows(reader, columns, keep, name)
    except csv.Error as error:
        raise ConfigError(f"{name}:{reader.line_num}: {error}") from None


def _rows(rows: Iterable[list[str]], columns: list[str], keep: Keep, name: str) -> list[Listed]:
    """The products of a table, each with the tiers of its rows."""
    tiers: dict[str, list[tuple[str, str, str, str]]] = {}
    products: dict[str, dict[str, str]] = {}
    term = columns.index("termtype")
    for row in rows:
        if len(row) != len(columns) or row[term] != "OnDemand":
            continue
        found = dict(zip(columns, row, strict=True))
        if not keep(found):
            continue
        sku = found["sku"]
        products[sku] = found
        _check_kept(len(products), name)
        tiers.setdefault(sku, []).append(
            (found.get("startingrange", "0"), found.get("unit", ""), found["priceperunit"],
             found["currency"])
        )  # fmt: skip
    return [
        _listed(sku, attributes, tiers[sku], f"{name}: {sku}")
        for sku, attributes in products.items()
    ]

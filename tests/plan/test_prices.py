"""Prices: files of regions are complete and have sources; those of users are validated."""

from pathlib import Path

import pytest

from seawall.errors import ConfigError
from seawall.plan.inputs.prices import (
    Prices,
    load_prices,
    needed,
    parse_discounts,
    read_prices,
    regions,
)

OWN = """
date = "2026-12-01"
region = "mars-1"
currency = "EUR"
[items."lambda.requests"]
price = 0.30
unit = "million"
source = "a contract"
"""


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_every_item_has_a_price_a_unit_and_a_source(region: str, architecture: str) -> None:
    prices = load_prices(region)
    assert prices.region == region and prices.date.startswith("2026")  # noqa: PT018
    for name in needed(architecture):
        item = prices.of(name)
        assert item.price > 0 and item.unit and item.source  # noqa: PT018
    machines = prices.machines(architecture)
    assert len(machines) >= 2
    costs = [prices.of(f"ec2.{name}").price for name in machines]
    assert costs == sorted(costs)
    assert regions() == ["eu-central-1", "us-east-1"]


def test_known_prices_of_us_east_1() -> None:
    prices = load_prices("us-east-1")
    assert prices.of("lambda.gb_seconds.x86_64").price == 0.0000166667
    assert prices.of("lambda.managed_fee").price == 0.15
    assert prices.of("eks.control_plane").price == 0.10


def test_a_missing_item_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(OWN, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"prices\.toml: items\.lambda\.gb_seconds\.arm64: miss"):
        read_prices(file)


def test_a_file_may_change_a_regions_prices(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('base = "eu-central-1"\n' + OWN, encoding="utf-8")
    prices = read_prices(file)
    assert (prices.region, prices.currency, prices.date) == ("mars-1", "EUR", "2026-12-01")
    assert prices.of("lambda.requests").price == 0.30
    assert prices.of("nat.hours") == load_prices("eu-central-1").of("nat.hours")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("0.30", "-1"), "items.lambda.requests.price: -1 is not a price"),
        (("0.30", "nan"), "items.lambda.requests.price: nan is not a price"),
        (("0.30", '"free"'), "items.lambda.requests: Expected `float`"),
        (('source = "a contract"', ""), "items.lambda.requests: .*`source`"),
        (('date = "2026-12-01"', ""), "date: missing"),
        (("[items", "[[items"), "prices.toml: Expected"),
    ],
)
def test_errors_name_the_item(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(OWN.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_prices(file)


def test_a_machine_needs_its_size(tmp_path: Path) -> None:
    text = 'base = "us-east-1"\n[items."ec2.x9.large"]\nprice = 1.0\nunit = "hour"\nsource = "?"\n'
    file = tmp_path / "prices.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"items\.ec2\.x9\.large: vcpus and memory_gb"):
        read_prices(file)


def test_an_unknown_region() -> None:
    with pytest.raises(ConfigError, match="eu-central-1, us-east-1"):
        load_prices("atlantis-1")


def discounted(**discounts: float) -> Prices:
    prices = load_prices("us-east-1")
    return Prices(
        date=prices.date, region=prices.region, currency=prices.currency, items=prices.items,
        file=prices.file, discounts=discounts,
    )  # fmt: skip


def test_discounts_apply_to_their_items() -> None:
    full, less = load_prices("us-east-1"), discounted(ec2=0.28, spot=0.6)
    name = "ec2.c7g.large"
    assert less.of(name).price == pytest.approx(full.of(name).price * 0.72)
    assert less.of(name, spot=True).price == pytest.approx(full.of(name).price * 0.4)
    assert less.of("nat.hours") == full.of("nat.hours")
    plan = discounted(**{"lambda": 0.12})
    for item in ("lambda.gb_seconds.arm64", "lambda.provisioned_gb_seconds.arm64"):
        assert plan.of(item).price == pytest.approx(full.of(item).price * 0.88)
    assert plan.of("lambda.requests") == full.of("lambda.requests")


def test_parsing_of_discounts() -> None:
    assert parse_discounts(["ec2=28%", "spot=0.6"]) == {"ec2": 0.28, "spot": 0.6}
    for text in ("ec2", "ec2=much", "ec2=100%", "ec2=-1%", "tea=5%", "ec2=nan"):
        with pytest.raises(ConfigError, match="discount"):
            parse_discounts([text])

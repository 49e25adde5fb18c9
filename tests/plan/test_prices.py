"""Prices: files of regions are complete and have sources; those of users are validated."""

from pathlib import Path

import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import Question, from_flags
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.prices import (
    Prices,
    cost_of,
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


def test_tiers_of_a_price() -> None:
    """Of 200 TB of traffic 10 cost the first price, 40 the next, 100 the next, 50 the last."""
    prices = load_prices("us-east-1")
    egress = prices.of("egress.gb")
    assert cost_of(egress, 1_024.0) == pytest.approx(1_024 * 0.09)
    whole = 10_240 * 0.09 + 40_960 * 0.085 + 102_400 * 0.07 + 51_200 * 0.05
    assert cost_of(egress, 204_800.0) == pytest.approx(whole)
    logs = prices.of("logs.lambda_gb")
    assert cost_of(logs, 60 * 1_024.0) == pytest.approx(5_120 + 5_120 + 2_048 + 512)
    assert cost_of(prices.of("logs.gb"), 60 * 1_024.0) == pytest.approx(30_720)
    half = structs.replace(prices, discounts={"lambda": 0.5}).of("lambda.gb_seconds.arm64")
    assert half.tiers[0][1] == pytest.approx(0.5 * 0.0000120001)


def test_tiers_of_functions() -> None:
    """x86: 6 billion GB-seconds at the first price, 9 at the next, 5 at the last."""
    compute = load_prices("us-east-1").of("lambda.gb_seconds.x86_64")
    whole = 6e9 * 0.0000166667 + 9e9 * 0.000015 + 5e9 * 0.0000133334
    assert cost_of(compute, 20e9) == pytest.approx(whole)


def test_logs_of_functions_have_tiers_of_their_own() -> None:
    question = Question(workload=from_flags(daily="86400"))
    for name, price in (("logs.lambda_gb", 0.25 + 0.25 / 2), ("logs.gb", 0.5)):
        lines = Bill(question, month_of(question))
        lines.log(Used(invocations=20 * 1_024.0 * 1_048_576.0), name=name)
        assert lines.items[0].price == pytest.approx(price)
        assert lines.items[0].monthly == pytest.approx(price * 20 * 1_024)


@pytest.mark.parametrize("tiers", ["[[5, 0.1], [5, 0.05], [2, 0.01]]", "[[0, 0.1]]"])
def test_tiers_must_rise(tmp_path: Path, tiers: str) -> None:
    file = tmp_path / "prices.toml"
    item = f'[items."egress.gb"]\nprice = 0.2\nunit = "GB"\nsource = "ours"\ntiers = {tiers}\n'
    file.write_text(f'base = "us-east-1"\n{item}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"items\.egress\.gb\.tiers: do not rise"):
        read_prices(file)

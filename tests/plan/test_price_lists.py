"""AWS's published price lists: JSON and CSV give the same prices; what is missing is said."""

import csv
import gzip
import io
import json
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.plan import from_flags
from seawall.plan.decision.advice import advise
from seawall.plan.decision.notes import stale_notes
from seawall.plan.inputs.prices import load_prices, needed, read_prices, stale_days
from seawall.plan.inputs.prices.importing import import_prices, price_file
from seawall.plan.inputs.prices.json_stream import JsonStream
from seawall.plan.inputs.prices.price_list import read_offer
from seawall.plan.inputs.question import Question
from tests.properties import examples

# Products of us-east-1 as AWS's lists of 2026-09 have them: usage type, family, other attributes,
# tiers (begin, price). Usage types and prices: github.com/ocelhq/ocel, research on the price list;
# SKUs of m7g: a public comparison of machines. The decoys are of the same lists.
Product = tuple[str, str, dict[str, str], list[tuple[str, str]]]
LINUX = {
    "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA",
    "capacitystatus": "Used", "licenseModel": "No License required", "marketoption": "OnDemand",
    "vcpu": "2", "memory": "8 GiB", "physicalProcessor": "AWS Graviton3 Processor",
    "processorArchitecture": "64-bit",
}  # fmt: skip
ON_DEMAND = "Amazon DynamoDB PayPerRequest Throughput"
LISTS: dict[str, list[Product]] = {
    "AWSLambda": [
        ("Request", "Serverless", {}, [("0", "0.0000002000")]),
        ("Lambda-GB-Second", "Serverless", {}, [("15000000000", "0.0000133334"),
            ("0", "0.0000166667"), ("6000000000", "0.0000150000")]),
        ("Lambda-GB-Second-ARM", "Serverless", {}, [
            ("7500000000", "0.0000120001"), ("0", "0.0000133334")]),
        ("Lambda-Provisioned-Concurrency", "Serverless", {}, [("0", "0.0000041667")]),
        ("Lambda-Provisioned-Concurrency-ARM", "Serverless", {}, [("0", "0.0000033334")]),
        ("Lambda-Provisioned-GB-Second", "Serverless", {}, [("0", "0.0000097222")]),
        ("Lambda-Provisioned-GB-Second-ARM", "Serverless", {}, [("0", "0.0000077778")]),
        ("Lambda-Edge-GB-Second", "Serverless", {}, [("0", "0.0000500100")]),
        ("Global-Request", "Serverless", {"location": "Any", "regionCode": ""}, [("0", "0.0")]),
    ],
    "AmazonEC2": [
        ("BoxUsage:m7g.large", "Compute Instance", LINUX, [("0", "0.0816000000")]),
        ("BoxUsage:m7g.large", "Compute Instance", LINUX | {"operatingSystem": "RHEL"},
         [("0", "0.1104000000")]),
        ("BoxUsage:m7g.large", "Compute Instance", LINUX | {"capacitystatus": "Unused"},
         [("0", "0.0816000000")]),
        ("BoxUsage:m7g.2xlarge", "Compute Instance", LINUX | {"vcpu": "8", "memory": "32 GiB"},
         [("0", "0.3264000000")]),
        ("DedicatedUsage:m7g.large", "Compute Instance", LINUX | {"tenancy": "Dedicated"},
         [("0", "0.0898000000")]),
        ("NatGateway-Hours", "NAT Gateway", {}, [("0", "0.0450000000")]),
        ("NatGateway-Bytes", "NAT Gateway", {}, [("0", "0.0450000000")]),
    ],
    "AmazonECS": [
        ("USE1-Fargate-vCPU-Hours:perCPU", "Compute", {}, [("0", "0.0404800000")]),
        ("USE1-Fargate-GB-Hours", "Compute", {}, [("0", "0.0044450000")]),
        ("USE1-Fargate-Windows-vCPU-Hours:perCPU", "Compute", {}, [("0", "0.0910400000")]),
        ("USE1-Fargate-ARM-vCPU-Hours:perCPU", "Compute", {}, [("0", "0.0323800000")]),
    ],
    "AmazonEKS": [("USE1-AmazonEKS-Hours:perCluster", "Compute", {}, [("0", "0.1000000000")])],
    "AWSELB": [
        ("LoadBalancerUsage", "Load Balancer-Application", {}, [("0", "0.0225000000")]),
        ("LCUUsage", "Load Balancer-Application", {}, [("0", "0.0080000000")]),
        ("TS-LoadBalancerUsage", "Load Balancer-Application", {}, [("0", "0.0050000000")]),
        ("LoadBalancerUsage", "Load Balancer", {}, [("0", "0.0250000000")]),
        ("ReservedLCUUsage", "Load Balancer-Application", {}, [("0", "0.0080000000")]),
    ],
    "AmazonApiGateway": [
        ("USE1-ApiGatewayHttpRequest", "API Calls", {}, [
            ("0", "0.0000010000"), ("300000000", "0.0000009000")]),
        ("USE1-ApiGatewayRequest", "API Calls", {}, [("0", "0.0000035000")]),
    ],
    "AmazonDynamoDB": [
        ("WriteRequestUnits", ON_DEMAND, {}, [("0", "0.000000625")]),
        ("ReadRequestUnits", ON_DEMAND, {}, [("0", "0.000000125")]),
        ("IA-WriteRequestUnits", ON_DEMAND, {}, [("0", "0.00000078")]),
    ],
    "AmazonCloudWatch": [("USE1-DataProcessing-Bytes", "Data Payload", {}, [
        ("0", "0"), ("5", "0.5000000000")])],
    "AWSDataTransfer": [
        ("DataTransfer-Out-Bytes", "Data Transfer",
         {"fromRegionCode": "us-east-1", "regionCode": ""},
         [("0", "0.0900000000"), ("10240", "0.0850000000")]),
        ("Global-DataTransfer-Out-Bytes", "Data Transfer", {"regionCode": ""}, [("0", "0.0")]),
        ("USE1-EUC1-AWS-Out-Bytes", "Data Transfer", {}, [("0", "0.0200000000")]),
    ],
    "AmazonVPC": [("USE1-PublicIPv4:InUseAddress", "", {}, [("0", "0.0050000000")])],
}  # fmt: skip
CAPTIONS = {  # of the same attributes in CSV
    "sku": "SKU", "productFamily": "Product Family", "regionCode": "Region Code",
    "usagetype": "usageType", "operatingSystem": "Operating System", "tenancy": "Tenancy",
    "preInstalledSw": "Pre Installed S/W", "capacitystatus": "CapacityStatus", "vcpu": "vCPU",
    "memory": "Memory", "physicalProcessor": "Physical Processor", "marketoption": "MarketOption",
    "licenseModel": "License Model", "processorArchitecture": "Processor Architecture",
    "location": "Location", "fromRegionCode": "From Region Code",
}  # fmt: skip


def as_json(code: str, products: list[Product], currency: str = "USD") -> str:
    document: dict[str, Any] = {
        "formatVersion": "v1.0", "disclaimer": "…", "offerCode": code,
        "version": "20260911173510", "publicationDate": "2026-09-11T17:35:10Z",
        "products": {}, "terms": {"OnDemand": {}, "Reserved": {"x": {}}}, "attributesList": {},
    }  # fmt: skip
    for at, (usage, family, attributes, tiers) in enumerate(products):
        sku = f"{code}{at:04}"
        document["products"][sku] = {
            "sku": sku, "productFamily": family,
            "attributes": {"usagetype": usage, "regionCode": "us-east-1"} | attributes,
        }  # fmt: skip
        dimensions = {
            f"{sku}.JRTCKXETXF.{tier}": {
                "unit": "Hrs", "beginRange": begin, "endRange": "Inf",
                "pricePerUnit": {currency: price},
            }
            for tier, (begin, price) in enumerate(tiers)
        }  # fmt: skip
        document["terms"]["OnDemand"][sku] = {
            f"{sku}.JRTCKXETXF": {
                "effectiveDate": "2026-09-01T00:00:00Z", "priceDimensions": dimensions,
            }
        }  # fmt: skip
    return json.dumps(document, indent=2)


def as_csv(code: str, products: list[Product]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([
        ["FormatVersion", "v1.0"], ["Disclaimer", "…"],
        ["Publication Date", "2026-09-11T17:35:10Z"],
        ["Version", "20260911173510"], ["OfferCode", code],
    ])  # fmt: skip
    names = sorted({key for each in products for key in each[2]} | {"regionCode"})
    fixed = ["TermType", "StartingRange", "EndingRange", "Unit", "PricePerUnit", "Currency"]
    writer.writerow(["SKU", *fixed, "Product Family", "usageType", *map(CAPTIONS.get, names)])
    for at, (usage, family, attributes, tiers) in enumerate(products):
        whole = {"regionCode": "us-east-1"} | attributes
        cells = [family, usage, *(whole.get(name, "") for name in names)]
        for begin, price in tiers:
            row = ["OnDemand", begin, "Inf", "Hrs", price, "USD"]
            writer.writerow([f"{code}{at:04}", *row, *cells])
        writer.writerow([f"{code}{at:04}", "Reserved", "0", "Inf", "Hrs", "0.01", "USD", *cells])
    return out.getvalue()


def write_lists(folder: Path, form: str) -> list[Path]:
    paths = []
    for code, products in LISTS.items():
        path = folder / f"{code}.{form}"
        text = (as_json if form == "json" else as_csv)(code, products)
        path.write_bytes(gzip.compress(text.encode()) if code == "AWSELB" else text.encode())
        paths.append(path)
    return paths


@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_lists_of_us_east_1_are_the_shipped_prices(form: str, tmp_path: Path) -> None:
    """Our prices, which were read from pages, are those of the lists."""
    imported = import_prices(write_lists(tmp_path, form))
    shipped = load_prices("us-east-1")
    assert (imported.prices.region, imported.prices.date) == ("us-east-1", "2026-09-11")
    for name in imported.found:
        if name != "fargate.vcpu_hours.arm64":  # not among the shipped ones
            assert imported.prices.of(name).price == pytest.approx(
                shipped.of(name).price, rel=1e-12
            )
    # What these lists, in which not every product is, have nothing of.
    assert set(needed("arm64")) - set(imported.found) == {
        "lambda.snapstart_cache", "lambda.snapstart_restore", "lambda.managed_fee",
        "lambda.managed_requests", "lambda.streamed_gb", "ec2_surplus.vcpu_hours",
        "ebs.gp3_gb_months", "vpc_endpoint.hours", "vpc_endpoint.gb",
    }  # fmt: skip
    assert set(imported.kept.values()) == {"not in the price lists"}
    function = imported.prices.of("lambda.gb_seconds.x86_64")
    assert function.tiers == ((6e9, 0.000015), (15e9, 0.0000133334))
    assert imported.prices.of("api_gateway.http").tiers == ((300.0, 0.9),)  # in millions
    assert imported.prices.of("logs.gb").tiers == ()  # what comes before is free
    large = imported.prices.of("ec2.m7g.large")
    assert (large.vcpus, large.memory_gb, large.architecture) == (2, 8, "arm64")
    assert large.source == "AWS's price list, AmazonEC2 20260911173510, SKU AmazonEC20000"


def test_json_and_csv_are_written_as_the_same_file_which_can_be_read(tmp_path: Path) -> None:
    written = []
    for form in ("json", "csv"):
        imported = import_prices(write_lists(tmp_path, form), machines=["m7g.2xlarge"])
        written.append(price_file(imported))
    assert written[0] == written[1]
    out = tmp_path / "prices.toml"
    out.write_text(written[0], encoding="utf-8")
    prices = read_prices(out)
    assert prices.items == imported.prices.items
    assert prices.of("ec2.m7g.2xlarge").price == 0.3264
    assert prices.of("ec2.m7g.2xlarge").vcpus == 8


# Rows of AWS's lists of eu-west-1, of 2021-03-04 (without region codes) and 2020-12-14.
LAMBDA_2021 = """"FormatVersion","v1.0"
"Publication Date","2021-03-04T16:38:09Z"
"Version","20210304163809"
"OfferCode","AWSLambda"
"SKU","TermType","StartingRange","EndingRange","Unit","PricePerUnit","Currency","Location","Group","usageType"
"VPGUBFQ4KNZKMKGJ","OnDemand","0","Inf","Request","0.0000002000","USD","EU (Ireland)","AWS-Lambda-Requests","EU-Request"
"ZQVCC2M69R4S79XS","OnDemand","0","1000000","Requests","0.0000000000","USD","Any","AWS-Lambda-Requests","Global-Request"
"PHDF9YNAFR3HDSR8","OnDemand","0","Inf","Lambda-GB-Second","0.0000166667","USD","EU (Ireland)","AWS-Lambda-Duration","EU-Lambda-GB-Second"
"84CXDMMA25MUNN4T","OnDemand","0","Inf","Request","0.0000006000","USD","EU (Ireland)","AWS-Lambda-Edge-Requests","EU-Lambda-Edge-Request"
"""  # noqa: E501
ECS_2020 = """sep=,
"FormatVersion","v1.0"
"Publication Date","2020-12-14T22:37:55Z"
"Version","20201214223755"
"OfferCode","AmazonECS"
SKU,TermType,StartingRange,EndingRange,Unit,PricePerUnit,Currency,usageType,Region Code
UP5ETC3QSW2QZGEY,OnDemand,0,Inf,hours,0.0044450000,USD,EU-Fargate-GB-Hours,eu-west-1
K4EXFQ5YFQCP98EN,OnDemand,0,Inf,hours,0.0404800000,USD,EU-Fargate-vCPU-Hours:perCPU,eu-west-1
3V9A5XTNJBY93V85,OnDemand,0,Inf,hours,0.0914800000,USD,EU-Fargate-Windows-vCPU-Hours:perCPU,eu-west-1
INVALID
"""


def test_a_region_that_is_not_shipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lambda.csv").write_text(LAMBDA_2021)
    (tmp_path / "ecs.csv").write_text(ECS_2020)
    out = tmp_path / "ireland.toml"
    command = ["plan", "prices", "import", str(tmp_path / "lambda.csv"), str(tmp_path / "ecs.csv")]
    assert main([*command, "--region", "eu-west-1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "4 prices of eu-west-1 from AWSLambda of 2021-03-04, AmazonECS of 2020-12-14" in printed
    assert "  nat.gb: not in the price lists\n" in printed
    prices = read_prices(out)
    assert (prices.region, prices.date, prices.currency) == ("eu-west-1", "2020-12-14", "USD")
    assert prices.of("lambda.gb_seconds.x86_64").price == 0.0000166667
    assert prices.of("lambda.requests").price == 0.2
    assert not prices.of("fargate.vcpu_hours.x86_64").uncertain
    nat = prices.of("nat.gb")
    assert nat.uncertain
    assert nat.source == "us-east-1, 2026-11-25: https://aws.amazon.com/vpc/pricing/"
    assert main([*command[:4], "--region", "eu-west-1"]) == 0  # to standard output
    assert tomllib.loads(capsys.readouterr().out)["date"] == "2021-03-04"
    assert main(command[:4]) == 2
    assert "give --region; regions there: none is named" in capsys.readouterr().err
    assert main(["plan", "--daily", "5", "prices", "show"]) == 2
    assert "--daily: is not an option of seawall plan prices" in capsys.readouterr().err
    assert main(["plan", "prices", "show", "--prices", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "eu-west-1, USD, prices of 2020-12-14; STALE: " in shown
    assert " 0.0000166667 a GB-s  AWS's price list, AWSLambda 20210304163809, SKU PHDF9Y" in shown
    assert " 0.045 a GB  uncertain  us-east-1, 2026-11-25: " in shown
    assert main(["plan", "prices", "show", "--prices", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["stale"], found["items"]["lambda.requests"]["price"]) == (True, 0.2)


def test_a_plan_with_imported_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prices.toml"
    imported = import_prices(write_lists(tmp_path, "json"))
    out.write_text(price_file(imported), encoding="utf-8")
    flags = ["plan", "--daily", "100", "--duration", "2s", "--platforms", "lambda"]
    old = price_file(imported).replace("2026-09-11", "2024-09-11")
    (tmp_path / "old.toml").write_text(old, encoding="utf-8")
    assert main([*flags, "--prices", str(tmp_path / "old.toml")]) == 0
    assert "\nPrices of us-east-1 are of 2024-09-11, " in capsys.readouterr().out
    shipped = Question(workload=from_flags(daily="100", duration="2s"))
    found = structs.replace(shipped, prices=read_prices(out))
    answers = [advise(each, vary=False) for each in (shipped, found)]
    assert answers[1].prices_date == "2026-09-11"
    costs = [
        {name: each.monthly_cost for name, each in answer.platforms.items()} for answer in answers
    ]
    assert costs[0] == pytest.approx(costs[1])


def test_old_prices_are_named_in_the_answer() -> None:
    prices = load_prices("us-east-1")
    assert stale_days(prices, date(2026, 12, 1)) is None
    assert stale_days(prices, date(2027, 3, 1)) == 96
    assert stale_notes(prices, date(2026, 12, 1)) == []
    (note,) = stale_notes(prices, date(2027, 3, 1))
    assert note.startswith("Prices of us-east-1 are of 2026-11-25, 96 days ago: import newer")


def wrong(change: str) -> str:
    old, new = change.split("→")
    return as_json("AWSLambda", LISTS["AWSLambda"]).replace(old, new)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ": offerCode: missing: not an offer file of AWS's price list; such as https://pri"),
        ("{}", ": offerCode: missing"),
        ("[1]", ": not JSON: '{' expected, '[' found"),
        ('{"offerCode": "x", "products": {"a": ', ": not JSON: Expecting value"),
        ('{"offerCode": "x", "products": {"a": 1}}', ": products.a.attributes: missing"),
        ('{"offerCode" "x"}', ": not JSON: ':' expected, '\"' found"),
        ('{3: "x"}', ": not JSON: a key is expected"),
        ('{"offerCode": ' + "9" * 5_000 + "}", ": not JSON: Exceeds the limit"),
        ('{"offerCode": ' + "[" * 100_000, ": not JSON: nested too deep"),
        (wrong("2026-09-11T→soon"), ": publicationDate: 'soon17:35:' is not a date"),
        (wrong('"AWSLambda",→"a\\n[items]",'), ": offerCode: 'a\\n[items]' is not a name of AWS"),
        (wrong("0.0000002000→free"), ": terms.OnDemand.AWSLambda0000: 'free' is not a price"),
        (wrong("0.0000002000→-1"), ": terms.OnDemand.AWSLambda0000: -1 is not a price"),
        (wrong('"USD": "0.0000002000"→"USD": "1", "CNY": "7"'), ": terms.OnDemand.AWSLambda0000"),
        (LAMBDA_2021.replace("PricePerUnit", "Price"), ": column priceperunit: missing"),
        (LAMBDA_2021.replace("0.0000002000", "much"), ": VPGUBFQ4KNZKMKGJ: 'much' is not a price"),
    ],
)  # fmt: skip
def test_errors_name_file_and_field(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "offer"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        import_prices([path], region="us-east-1")
    assert str(raised.value).removeprefix(str(path)).startswith(words)


def test_what_cannot_be_decided_is_kept_and_said(tmp_path: Path) -> None:
    path = tmp_path / "offer.json"
    twice: list[Product] = [
        ("USE1-DataProcessing-Bytes", "Data Payload", {}, [("0", "0.5")]),
        ("USE1-DataProcessing-Bytes", "Data Payload", {"group": "other"}, [("0", "0.25")]),
        ("NatGateway-Bytes", "NAT Gateway", {}, [("0", "0.045")]),
        ("NatGateway-Hours", "NAT Gateway", {}, [("0", "0")]),
        ("LCUUsage", "Load Balancer-Application", {}, [("0", "0.008"), ("0", "0"), ("9", "0.007")]),
        ("EUC1-NatGateway-Bytes", "NAT Gateway", {"regionCode": "eu-central-1"}, [("0", "0.052")]),
    ]
    path.write_text(as_json("AmazonVPC", twice))
    imported = import_prices([path], region="us-east-1")
    assert imported.found == ("alb.lcu_hours", "nat.gb")
    units = imported.prices.of("alb.lcu_hours")
    assert (units.price, units.tiers) == (0.008, ((9.0, 0.007),))
    assert imported.kept["logs.gb"] == "2 prices match: 0.25, 0.5"
    assert imported.kept["nat.hours"] == "the price list has no price above 0"
    assert imported.prices.of("logs.gb") == load_prices("us-east-1").of("logs.gb")
    with pytest.raises(ConfigError, match="give --region; regions there: eu-central-1, us-east-1"):
        import_prices([path])
    with pytest.raises(ConfigError, match="none of the products of AmazonVPC is an item of a plan"):
        import_prices([path], region="ap-south-1")
    yuan: list[Product] = [
        ("CNN1-NatGateway-Bytes", "x", {"regionCode": "cn-north-1"}, [("0", "0.4")])
    ]
    path.write_text(as_json("AmazonVPC", yuan, currency="CNY"))
    with pytest.raises(ConfigError, match="in CNY, and not in the price lists: agentcore"):
        import_prices([path], region="cn-north-1")
    assert main(["plan", "prices", "import", str(path), "--out", str(tmp_path / "no" / "x")]) == 2


def test_a_long_list_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Three megabytes of other products, and reserved terms that are never looked at."""
    others: list[Product] = [(f"Other-{at}", "x" * 900, {}, [("0", "1.0")]) for at in range(1_500)]
    path = tmp_path / "offer.json"
    text = as_json("AWSLambda", [*others, *LISTS["AWSLambda"]])
    path.write_text(text.replace('"Reserved": {', '"Reserved": {{{ not JSON from here on', 1))
    offer, found = read_offer(path, lambda each: each["usagetype"] == "Request")
    assert offer.date == "2026-09-11"
    assert [(each.sku, float(each.price)) for each in found] == [("AWSLambda1500", 2e-7)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@examples(40, 1_000)
@given(document=st.dictionaries(st.text(), JSON, max_size=6), chunk=st.integers(1, 40),
       indent=st.sampled_from([None, 2]))  # fmt: skip
def test_a_stream_reads_what_the_whole_document_has(
    document: dict[str, Any], chunk: int, indent: int | None
) -> None:
    for ascii_only in (True, False):
        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
        stream = JsonStream(io.StringIO(text), "x", chunk)
        assert {key: stream.value() for key in stream.members()} == document
        cut = JsonStream(io.StringIO(text[:-1]), "x", chunk)
        with pytest.raises(ConfigError, match="x: not JSON: "):
            for _ in cut.members():
                cut.value()

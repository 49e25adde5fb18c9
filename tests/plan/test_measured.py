"""Measurements and bills of other tools: what each replaces, and what contradicts the rest."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.plan import (
    Lambda,
    Question,
    Service,
    Spike,
    Stage,
    constant,
    from_flags,
    simulate,
    with_measured,
)
from seawall.plan.decision.notes import inputs_of
from seawall.plan.inputs.arrivals import Arrivals
from seawall.plan.inputs.calibration import Measured, calibrated
from seawall.plan.inputs.prices import load_prices, parse_discounts
from seawall.plan.inputs.question import Options
from seawall.plan.inputs.workload import Workload
from tests.properties import examples

# Published: all prime numbers up to a million on Lambda, mean of 1,000 invocations (J. Conning,
# 2017, github.com/jconning/lambda-cpu-cost): memory in MB, seconds.
PRIMES = ((128, 11.722965), (256, 6.678945), (512, 3.194954), (1_024, 1.465984))


def question(**flags: Any) -> Question:
    return Question(workload=from_flags(**({"daily": "1000"} | flags)))


def sources(found: Question) -> dict[str, str]:
    return {each.name: each.source for each in inputs_of(found) if each.given}


def tuning(rows: Any, price: float = 0.0000133334) -> dict[str, Any]:
    """As the state machine's output has it; prices as it reckons them."""
    stats = [
        {
            "value": memory,
            "averageDuration": seconds * 1e3,
            "averagePrice": price * memory / 1_024 * -(-seconds * 1e3 // 1) / 1e3,
        }
        for memory, seconds in rows
    ]
    return {
        "power": str(rows[0][0]), "cost": stats[0]["averagePrice"], "duration": 1.0,
        "stateMachine": {"executionCost": 0.00045, "lambdaCost": 0.0005252}, "stats": stats,
    }  # fmt: skip


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@examples(40, 1_000)
@given(
    wait=st.floats(0.0, 20.0),
    cpu=st.floats(0.01, 5.0),
    sizes=st.sets(st.integers(128, 1_600), min_size=2, max_size=6),
    beyond=st.lists(st.integers(1_769, 10_240), max_size=2),
)
def test_power_tuning_tells_processor_time_from_waiting(
    wait: float, cpu: float, sizes: set[int], beyond: list[int], tmp_path_factory: Any
) -> None:
    """Durations by the rule of 1,769 MB give back what they were made of."""
    folder = tmp_path_factory.mktemp("tuning")
    rows = [(size, wait + cpu * max(1.0, 1_769 / size)) for size in [*sizes, *beyond]]
    found = with_measured(question(), [write(folder, "t.json", tuning(rows))])
    stages = found.workload.service.stages
    assert sum(stage.cpu_ms for stage in stages) == pytest.approx(cpu * 1e3, rel=1e-5, abs=1e-3)
    assert found.workload.service.mean_seconds == pytest.approx(wait + cpu, rel=1e-5)
    assert sources(found)["service.stages.cpu_ms"] == (
        "measured by AWS Lambda Power Tuning (t.json), on arm64"
    )


def test_a_published_experiment_with_memory_sizes(tmp_path: Path) -> None:
    """Simulated at each size, the service that was fitted takes what was measured on Lambda."""
    path = write(tmp_path, "primes.json", {"results": tuning(PRIMES)})
    service = with_measured(question(), [path]).workload.service
    cpu = sum(stage.cpu_ms for stage in service.stages)
    # The processor is all that it needs: each size alone says how much.
    alone = [1e3 * seconds * memory / 1_769 for memory, seconds in PRIMES]
    assert min(alone) < cpu < max(alone)
    whole = Stage("all", constant(service.mean_seconds), cpu_ms=cpu, model=True)
    bare = Workload(
        arrivals=Arrivals(horizon=60.0, spikes=(Spike(50, 1.0),)),
        service=Service(stages=(whole,), start=constant(0.0)),
    )
    for memory, seconds in PRIMES:
        used = simulate(bare, Lambda(memory_mb=memory)).usage
        assert used.billed_seconds / 50 == pytest.approx(seconds, rel=0.1)


def test_the_output_of_an_execution_and_a_compressed_file(tmp_path: Path) -> None:
    execution = {"status": "SUCCEEDED", "output": json.dumps(tuning(PRIMES, 0.0000166667))}
    path = tmp_path / "execution.json"
    path.write_bytes(gzip.compress(json.dumps(execution).encode()))
    found = with_measured(question(), [path])
    assert sources(found)["service.stages.cpu_ms"].endswith("(execution.json), on x86_64")
    on_arm = structs.replace(found, given=frozenset({"options.architecture"}))
    with pytest.raises(ConfigError, match=r"measured on x86_64; the architecture is arm64"):
        with_measured(structs.replace(question(), given=on_arm.given), [path])
    x86 = structs.replace(question(), options=Options(architecture="x86_64"), given=on_arm.given)
    assert with_measured(x86, [path]).workload.service.stages != question().workload.service.stages


OPTIMIZER = (
    "accountId,functionArn,functionVersion,finding,numberOfInvocations,"
    "utilizationMetrics_durationAverage,utilizationMetrics_memoryMaximum,"
    "currentConfiguration_memorySize,errorCode,recommendations_count\n"
    "1,arn:aws:lambda:us-east-1:1:function:chat,$LATEST,NotOptimized,52000,2500.5,187.0,1024,,1\n"
)
SERVICES = (
    "accountId,serviceArn,currentServiceConfiguration_memory,utilizationMetrics_MEMORY_MAXIMUM\n"
    "1,arn:aws:ecs:us-east-1:1:service/c/chat,2048,25.0\n"
)


def test_compute_optimizer(tmp_path: Path) -> None:
    found = with_measured(question(), [write(tmp_path, "co.csv", OPTIMIZER)])
    service = found.workload.service
    assert service.memory_mb == 187.0
    assert service.mean_seconds == pytest.approx(2.5005)
    assert sources(found)["service.memory_mb"] == "measured by AWS Compute Optimizer (co.csv)"
    found = with_measured(question(), [write(tmp_path, "ecs.csv", SERVICES)])
    assert found.workload.service.memory_mb == 512.0
    given = question(duration="4s", start="1s")
    stays = with_measured(given, [write(tmp_path, "co.csv", OPTIMIZER)])
    assert stays.workload.service.mean_seconds == pytest.approx(4.0)
    assert stays.workload.service.memory_mb == 187.0


ALLOCATION = {  # the figures of Kubecost's documented example, and idle capacity at the same prices
    "code": 200,
    "data": [
        {
            "demo": {"cpuCoreHours": 359.328295, "cpuCost": 11.358727, "cpuCostAdjustment": 0.0,
                     "ramByteHours": 2.0**30 * 800, "ramCost": 3.4, "minutes": 9420.0},
            "__idle__": {"cpuCoreHours": 359.328295, "cpuCost": 11.358727,
                         "ramByteHours": 2.0**30 * 100, "ramCost": 0.5,
                         "ramCostAdjustment": -0.075},
        }
    ],
}  # fmt: skip


def test_opencost(tmp_path: Path) -> None:
    path = write(tmp_path, "allocation.json", ALLOCATION)
    found = with_measured(question(), [path])
    core, gb = 11.358727 / 359.328295, 3.825 / 900
    machine = found.prices.of("ec2.m7g.large")
    assert machine.price == pytest.approx(2 * core + 8 * gb)
    assert machine.uncertain
    assert found.prices.of("nat.gb") == load_prices("us-east-1").of("nat.gb")
    assert sources(found)["prices"] == (
        "prices of us-east-1; 7 of them measured by OpenCost (allocation.json): 0.03161 a "
        "core-hour, 0.00425 a GB-hour"
    )


HEAD_1 = (
    "identity/LineItemId,bill/BillingPeriodStartDate,lineItem/LineItemType,lineItem/UsageStartDate,"
    "lineItem/ProductCode,lineItem/UsageType,lineItem/UsageAmount,lineItem/CurrencyCode,"
    "lineItem/UnblendedCost,product/region,reservation/EffectiveCost,"
    "savingsPlan/SavingsPlanEffectiveCost\n"
)
HEAD_2 = (
    "identity_line_item_id,bill_billing_period_start_date,line_item_line_item_type,"
    "line_item_usage_start_date,line_item_product_code,line_item_usage_type,"
    "line_item_usage_amount,line_item_currency_code,line_item_unblended_cost,product_region_code,"
    "reservation_effective_cost,savings_plan_savings_plan_effective_cost\n"
)
EAST = "us-east-1"
LINES = [  # type, usage type, amount, unblended, region, reservation, savings plan
    ("Usage", "Request", 9_000_000, 1.8, EAST, "", ""),
    ("Usage", "Global-Request", 1_000_000, 0.0, "", "", ""),
    ("Usage", "Lambda-GB-Second-ARM", 5_000_000, 66.667, EAST, "", ""),
    ("SavingsPlanCoveredUsage", "Lambda-GB-Second-ARM", 5_000_000, 66.667, EAST, "", 58.667),
    ("SavingsPlanNegation", "Lambda-GB-Second-ARM", 5_000_000, -66.667, EAST, "", ""),
    ("Usage", "USE1-DataProcessing-Bytes", 30, 15.0, EAST, "", ""),
    ("Usage", "USE1-DataProcessing-Bytes", 5, 0.0, EAST, "", ""),
    ("Usage", "NatGateway-Bytes", 400, 18.0, EAST, "", ""),
    ("Usage", "NatGateway-Hours", 1_460, 65.7, EAST, "", ""),
    ("DiscountedUsage", "BoxUsage:m7g.large", 730, 0.0, EAST, 37.0, ""),
    ("Usage", "DataTransfer-Out-Bytes", 200, 18.0, EAST, "", ""),
    ("Usage", "WriteRequestUnits", 60_000_000, 37.5, EAST, "", ""),
    ("Usage", "ReadRequestUnits", 20_000_000, 2.5, EAST, "", ""),
    ("Usage", "EUC1-NatGateway-Bytes", 9_000, 468.0, "eu-central-1", "", ""),
    ("Credit", "NatGateway-Bytes", 400, -18.0, EAST, "", ""),
    ("Tax", "", 1, 20.0, "", "", ""),
]


def report(head: str, lines: list[Any] = LINES) -> str:
    rows = [
        f"{at},2026-10-01,{kind},2026-10-{at + 1:02}T00:00:00Z,AWS,{usage},{amount},USD,{cost},"
        f"{region},{reserved},{plan}"
        for at, (kind, usage, amount, cost, region, reserved, plan) in enumerate(lines)
    ]
    return head + "\n".join(rows) + "\n"


@pytest.mark.parametrize("head", [HEAD_1, HEAD_2], ids=["CUR 1", "CUR 2"])
def test_a_bill_gives_prices_and_amounts(head: str, tmp_path: Path) -> None:
    found = with_measured(question(), [write(tmp_path, "cur.csv", report(head))])
    prices, each = found.prices, found.each
    assert prices.of("lambda.requests").price == pytest.approx(0.2)
    # Half on demand, half by a savings plan at 12 % less.
    assert prices.of("lambda.gb_seconds.arm64").price == pytest.approx(125.334 / 10_000_000)
    assert prices.of("ec2.m7g.large").price == pytest.approx(37 / 730)
    assert prices.of("nat.hours").price == pytest.approx(0.045)
    assert prices.of("logs.gb").price == pytest.approx(0.5)  # without the free five
    assert prices.of("dynamodb.write_units").price == pytest.approx(0.625)
    assert prices.of("eks.control_plane") == load_prices(EAST).of("eks.control_plane")
    assert each.log_kb == pytest.approx(35 * 2**20 / 1e7 - 0.5)
    assert each.kb_to_model == pytest.approx(400 * 2**20 / 1e7)
    assert each.kb_to_callers == pytest.approx(200 * 2**20 / 1e7)
    assert [each.write_units, each.read_units] == pytest.approx([6.0, 2.0])
    assert sources(found)["each.log_kb"] == (
        "measured by a Cost and Usage Report (cur.csv), 2026-10-01 to 2026-10-13"
    )
    assert "9 of them measured by a Cost and Usage Report" in sources(found)["prices"]


def test_a_bill_comes_back_from_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logs and requests of the answer cost what they cost on the bill, for as many requests."""
    path = write(tmp_path, "cur.csv", report(HEAD_1))
    flags = ["plan", "--daily", str(1e7 * 24 / 730), "--duration", "1s", "--platforms", "lambda"]
    assert main([*flags, "--json", "--measured", str(path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    items = {each["name"]: each["monthly"] for each in answer["platforms"]["lambda"]["items"]}
    logs = sum(cost for name, cost in items.items() if name.startswith("logs."))
    assert logs == pytest.approx(17.5, rel=0.03)  # 35 GB, the free ones not deducted
    assert items["lambda.requests"] == pytest.approx(2.0, rel=0.03)
    inputs = {each["name"]: each for each in answer["inputs"]}
    assert inputs["each.kb_to_model"]["source"].startswith("measured by a Cost and Usage Report")
    assert inputs["each.kb_to_model"]["given"]
    assert not inputs["each.input_tokens"]["given"]


def test_a_plan_file_names_its_measurements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "tuning.json", tuning(PRIMES))
    plan = write(
        tmp_path,
        "plan.toml",
        '[arrivals]\ndaily = "100"\n[measured]\nfiles = ["tuning.json"]\n'
        '[deployed]\nplatform = "lambda"\nmemory_mb = "1GB"\n',
    )
    flags = ["--platforms", "lambda", "--json"]
    assert main(["plan", "--workload", str(plan), *flags]) == 0
    inputs = {each["name"]: each for each in json.loads(capsys.readouterr().out)["inputs"]}
    assert "Power Tuning" in inputs["service.stages.cpu_ms"]["source"]
    assert main(["plan", "--check", str(plan), "--measured", str(tmp_path / "tuning.json")]) == 2
    assert "is also measured by AWS Lambda Power Tuning" in capsys.readouterr().err
    for text, words in (
        ("files = 3", "measured.files: is not a list"),
        ("x = 1", "measured: must"),
    ):
        plan.write_text(f"[measured]\n{text}\n")
        assert main(["plan", "--workload", str(plan)]) == 2
        assert words in capsys.readouterr().err


def test_contradictions_are_refused_by_name(tmp_path: Path) -> None:
    bill = write(tmp_path, "cur.csv", report(HEAD_1))
    costs = write(tmp_path, "oc.json", ALLOCATION)
    tuned = write(tmp_path, "tuning.json", tuning(PRIMES))
    optimized = write(tmp_path, "co.csv", OPTIMIZER)

    def refused(paths: list[Path], words: str, base: Question | None = None) -> None:
        with pytest.raises(ConfigError) as raised:
            with_measured(base or question(), paths)
        assert str(raised.value).startswith(f"{paths[-1]}: {words}")

    refused([bill, costs], "ec2.m7g.large: is also measured by a Cost and Usage Report (cur.csv)")
    refused(
        [tuned, optimized],
        "service.stages.seconds: is also measured by AWS Lambda Power Tuning (tuning.json); give",
    )
    for text, item in (("ec2=28%", "ec2.m7g.large"), ("lambda=12%", "lambda.gb_seconds.arm64")):
        prices = structs.replace(load_prices(EAST), discounts=parse_discounts([text]))
        discounted = structs.replace(question(), prices=prices)
        refused([bill], f"{item}: an effective price, which discounts are in", discounted)
    europe = structs.replace(question(), prices=load_prices("eu-central-1"))
    only = write(tmp_path, "east.csv", report(HEAD_1, LINES[:3]))
    refused([only], "no line of eu-central-1 is an item of a plan; it has lines of us-east", europe)
    measured = Measured(format="", machine="m", date="d", cpu_ms=2.0)
    lab = structs.replace(question(), workload=calibrated(question().workload, measured))
    refused([tuned], "service.stages.cpu_ms: is also measured by seawall lab calibrate on m", lab)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ": unknown; known: results of AWS Lambda Power Tuning (JSON), exports of Compute"),
        ("a,b\n1,2\n", ": unknown; known: "),
        ({"hello": 1}, ": unknown JSON; known: "),
        ("{", ": not JSON: Expecting property name"),
        ({"stateMachine": {}}, ': stats: missing; run the state machine with "includeOutputResul'),
        (tuning(PRIMES[:1]), ": stats: one memory size up to 1,769 MB; at least two are needed"),
        (tuning([(512, 1.0), (1_024, 3.0), (1_536, 9.0)]), ": stats: durations do not fall with"),
        (tuning([(2_048, 2.0), (4_096, 1.0)]), ": stats: one memory size up to 1,769 MB"),
        ({"stateMachine": {}, "stats": [{"value": "x"}]}, ": stats.0.value: 'x' is not a number"),
        ({"stateMachine": {}, "stats": [{"value": 128}]}, ": stats.0.averageDuration: missing"),
        ({"stateMachine": {}, "stats": [3]}, ": stats.0: not an object"),
        (tuning([(512, -1.0), (128, 1.0)]), ": stats.0.averageDuration: -1000 is not a positive"),
        (OPTIMIZER + OPTIMIZER.splitlines()[1].replace(":chat", ":bot") + "\n",
         ": 2 resources (bot, chat); keep the row of the one"),
        (OPTIMIZER.replace("2500.5", ""),
         ":2: utilizationmetricsdurationaverage: '' is not a number"),
        (OPTIMIZER.replace("functionArn", "instanceArn"), ":2: neither functionArn nor serviceArn"),
        ({"data": [{"x": {"cpuCoreHours": 0, "cpuCost": 0, "ramCost": 1, "ramByteHours": 1}}]},
         ": cpuCost: 0 in all; there is no price in it"),
        ({"data": [{"x": {"cpuCoreHours": "1"}}]}, ": x.cpuCost: None is not a number"),
        (report(HEAD_1).replace(",9000000,", ",lots,"), ":2: lineitemusageamount: 'lots' is not"),
        (report(HEAD_1).replace("USD", "EUR"), ":2: in EUR; the prices are in USD"),
    ],
)  # fmt: skip
def test_errors_name_file_and_field(content: Any, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, "measured", content)
    with pytest.raises(ConfigError) as raised:
        with_measured(question(), [path])
    assert str(raised.value).removeprefix(str(path)).startswith(words)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: cannot be read"):
        with_measured(question(), [tmp_path / "none"])
    path = tmp_path / "cur.parquet"
    path.write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(ConfigError, match=r"cur\.parquet: is not text in UTF-8; known: "):
        with_measured(question(), [path])

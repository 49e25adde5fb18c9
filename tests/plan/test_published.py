"""Published comparisons and AWS's own worked bills beside ours; docs/plan.md has the table.

What the author counted is recomputed with their quantities; what they left out is a line of ours.
"""

import pytest

from seawall.plan import Service, Stage, Workload, constant, from_flags
from seawall.plan.decision.bill import Used
from seawall.plan.decision.places.eks import eks
from seawall.plan.decision.places.lambda_function import CLASSIC, function
from seawall.plan.decision.places.lambda_provisioned import PROVISIONED
from seawall.plan.decision.places.machines import fargate_hourly
from seawall.plan.decision.places.port import bill_of
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.search import CandidateSearch
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.arrivals import Arrivals
from seawall.plan.inputs.prices import load_prices
from seawall.plan.inputs.question import Options, Question

PRICES = load_prices("us-east-1")
X86 = Options(architecture="x86_64", platforms=("lambda", "eks"))
FREE_REQUESTS, FREE_GB_SECONDS = 1e6, 400_000.0  # of AWS's free tier, which we do not count


def lambda_bill(
    memory_mb: int, used: Used, *, provisioned: int = 0, daily: str = "100000"
) -> dict[str, float]:
    """Lines of a function's bill in us-east-1 on x86."""
    question = Question(workload=from_flags(daily=daily, duration="1s", start="1s"), options=X86)
    month = month_of(question)
    place = PROVISIONED if provisioned else CLASSIC
    candidate = function(question, month, place, memory_mb=memory_mb, provisioned=provisioned)
    return {item.title: item.monthly for item in bill_of(question, month, candidate, used)}


@pytest.mark.parametrize(
    ("millions", "seconds", "memory_mb", "published"),
    [
        (3, 0.12, 1_536, 2.73),  # https://aws.amazon.com/lambda/pricing/, example 1
        (3, 1.0, 512, 18.74),  # the same page earlier, at $0.00001667 a GB-second
    ],
)
def test_lambda_bills_of_aws(
    millions: float, seconds: float, memory_mb: int, published: float
) -> None:
    requests = millions * 1e6
    free = FREE_GB_SECONDS / (memory_mb / 1_024)
    used = Used(invocations=requests - FREE_REQUESTS, billed_seconds=requests * seconds - free)
    found = lambda_bill(memory_mb, used)
    assert found["compute"] + found["requests"] == pytest.approx(published, abs=0.011)


def test_the_provisioned_bill_of_aws() -> None:
    """1,000 of 1 GB for two hours, 1.2 million requests of a second: $41.91."""
    used = Used(invocations=1.2e6, provisioned_seconds=7.2e6, provisioned_billed_seconds=1.2e6)
    found = lambda_bill(1_024, used, provisioned=1_000)
    assert found["provisioned, standing"] == pytest.approx(30.00, abs=0.005)
    assert found["provisioned, compute"] == pytest.approx(11.67, abs=0.005)
    assert sum(found[name] for name in found if name != "logs") == pytest.approx(41.91, abs=0.005)


def test_the_fargate_bill_of_aws() -> None:
    """1 vCPU and 2 GB all month: $36.04; a pod of 1.75 GB, for Kubernetes keeps 256 MB."""
    hourly = fargate_hourly(PRICES, 1.0, 1.75 * 1_024)
    assert hourly * 730 == pytest.approx(36.04, abs=0.005)


@pytest.mark.parametrize(
    ("seconds", "memory_mb", "published"),
    [
        (0.2, 512, 1.87),  # keystone; deepakkarkala.com has the same figure
        (0.2, 1_024, 3.53),  # deepakkarkala.com/playbooks/aws-for-mlops/compute
        (1.0, 1_024, 16.87),  # the same page
    ],
)
def test_a_million_requests(seconds: float, memory_mb: int, published: float) -> None:
    used = Used(invocations=1e6, billed_seconds=seconds * 1e6)
    found = lambda_bill(memory_mb, used)
    assert found["compute"] + found["requests"] == pytest.approx(published, abs=0.005)
    # What they leave out: 1.5 KB of logs a request, at $0.50 a GB.
    assert found["logs"] == pytest.approx(1.5e6 / 1_048_576 * 0.5)
    assert set(found) == {"compute", "requests", "logs"}


def test_ten_thousand_requests_a_day() -> None:
    """trek10: $0.31, that is 15,000 GB-seconds in 30 days; ours adds logs of $0.21."""
    used = Used(invocations=0.3e6, billed_seconds=30_000.0)
    found = lambda_bill(512, used)
    assert found["compute"] + found["requests"] == pytest.approx(0.31, abs=0.005)
    assert found["logs"] == pytest.approx(0.21, abs=0.005)


def test_provisioned_concurrency_pays_from_three_fifths() -> None:
    """finops.com.py: from a utilisation of about 60 %; on Arm from 60 % too."""
    for arch in ("x86_64", "arm64"):
        standing = PRICES.of(f"lambda.provisioned_gb_seconds.{arch}").price
        busy = PRICES.of(f"lambda.provisioned_duration.{arch}").price
        demand = PRICES.of(f"lambda.gb_seconds.{arch}").price
        assert standing / (demand - busy) == pytest.approx(0.60, abs=0.005)


def api(rate_by_hour: tuple[float, ...], seconds: float = 0.2) -> Question:
    """An API on x86 with this rate in each hour of the day."""
    mean = sum(rate_by_hour) / 24
    shape = rate_by_hour if len(set(rate_by_hour)) > 1 else ()
    stages = (Stage("work", constant(seconds), cpu_ms=2.0),)
    arrivals = Arrivals(horizon=86_400.0, rate=mean, daily_shape=shape)
    workload = Workload(arrivals=arrivals, service=Service(stages=stages, start=constant(0.3)))
    return Question(workload=workload, options=X86)


def costs(question: Question) -> tuple[dict[str, float], dict[str, float]]:
    """Simulated lines of classic Lambda with 256 MB, and of two pods on EKS."""
    month, runs = month_of(question), SimulationRunner()
    finder = CandidateSearch(question, month, runs)
    found = [
        finder.evaluate(function(question, month, CLASSIC, memory_mb=256)),
        finder.find("eks"),
    ]
    runs.close()
    bills = [{item.title: item.monthly for item in each.items} for each in found]
    return bills[0], bills[1]


def test_devtocash_five_hundred_a_second_for_four_hours() -> None:
    """https://devtocash.com/blog/2026-04-07-aws-lambda-vs-containers-cost-comparison

    500 a second for 4 hours a day, 5 for 20; 200 ms; 256 MB; 30 days: requests $45.40 and compute
    $189.16 before the free tier; two Fargate tasks of 1 vCPU and 2 GB $72.08, and a load balancer
    of about $30: $102.
    """
    theirs = 226.8e6
    exact = lambda_bill(256, Used(invocations=theirs, billed_seconds=theirs * 0.2))
    assert exact["requests"] == pytest.approx(45.40, abs=0.05)
    assert exact["compute"] == pytest.approx(189.16, abs=0.20)
    functions, pods = costs(api((5.0,) * 10 + (500.0,) * 4 + (5.0,) * 10))
    months = 730 / 720  # our month is longer by ten hours
    # Arrivals are random: a window of 10,000 is right to one per cent.
    assert functions["requests"] == pytest.approx(45.36 * months, rel=0.03)
    # The plan's requests take processor time, which 256 MB have a seventh of: 2 ms become 14.
    assert functions["compute"] == pytest.approx(189.0 * months, rel=0.10)
    assert functions["logs"] == pytest.approx(theirs * months * 1.5 / 1_048_576 * 0.5, rel=0.03)
    tasks = 2 * fargate_hourly(PRICES, 1.0, 1.75 * 1_024) * 730
    assert tasks == pytest.approx(59.10 + 12.98, abs=0.01)
    # Ours on EKS: what they leave out is most of it.
    network = sum(cost for title, cost in pods.items() if title.startswith("NAT"))
    assert network > 0.5 * sum(pods.values())
    left_out = network + pods["control plane"] + pods["logs"]
    assert sum(pods.values()) - left_out < 130.0


def test_c3x_the_crossover_to_containers() -> None:
    """https://c3x.dev/blog/containers-vs-serverless-cost-comparison: 2-3 million requests a day.

    Their prices: two m6i.large at $60.74 and a load balancer at $16.20 against a 512 MB function
    of 200 ms. On EKS the control plane and NAT move it out.
    """
    per_million = 0.20 + 0.2 * 0.5 * 16.6667
    theirs = (2 * 60.74 + 16.20) / per_million / 30
    assert 2.0 < theirs < 3.0
    question = api((1.0,) * 24)
    month = month_of(question)
    hours = 2 * 730 * 3_600.0
    standing = {
        item.title: item.monthly
        for item in bill_of(
            question, month, eks(question, month, cores=0.85, pods=4), Used(node_seconds=hours)
        )
    }
    fixed = sum(standing.values())
    apart = standing["control plane"] + sum(
        cost for title, cost in standing.items() if title.startswith("NAT")
    )
    with_all, without = (cost / per_million / 30.4 for cost in (fixed, fixed - apart))
    assert theirs < without < 3.2  # ours also has disks and public addresses
    assert with_all > 4.0
    assert apart > 0.45 * fixed
    gb = 40 / 1_048_576 * 1e6 * PRICES.of("nat.gb").price  # of a million requests
    assert gb > 0.9 * per_million, "NAT's data alone costs as much as the function"

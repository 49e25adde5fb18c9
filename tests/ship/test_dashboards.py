"""Dashboards and alerts query metrics that a server really exports."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.parts import require
from tests.parts.system import missing_promtool
from tests.servers import ROOT, running_model, running_server
from tests.ship.chart import LARGE, only, rendered

FILES = ROOT / "deploy/helm/seawall/files"
SAID = "Hello, this is clara.costa102@example.com. Where is my order #W1005754?"
_SELECTOR = re.compile(r"(seawall_\w+)(?:\{([^}]*)\})?")


def dashboard() -> dict[str, list[str]]:
    """Expressions by panel, without Grafana's variables."""
    document = json.loads((FILES / "dashboard.json").read_text())
    return {
        panel["title"]: [
            target["expr"].replace("$__rate_interval", "5m").replace("$", "")
            for target in panel["targets"]
        ]
        for panel in document["panels"]
    }


def rules() -> list[dict[str, str]]:
    document = yaml.safe_load((FILES / "rules.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    return [each for found in dashboard().values() for each in found] + [
        rule["expr"] for rule in rules()
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """The metrics of a server after a surge: labels of the samples, by name."""
    folder = tmp_path_factory.mktemp("surge")
    script = str(ROOT / "examples/store/conversation.json")
    quick = ("--first-token", "0.01", "--duration", "0.3", "--script", script)
    price = "{prompt = 1.0, completion = 2.0, currency = 'USD'}"
    with (
        running_model(*quick) as model,
        running_server(
            folder,
            model,
            SERVER__WORKERS="2",
            IDENTITY__ANONYMOUS="true",
            MODELS__DEFAULT__PRICE=price,
            ADMISSION__IN_FLIGHT="8",
            ADMISSION__QUEUED="4",
        ) as server,
    ):
        with httpx2.Client(base_url=server.url, timeout=30) as client:
            for text in (SAID, "What are your opening hours?"):
                assert client.post("/v1/turns", json={"text": text}).status_code == 200
            for field in ("agent", "session"):
                strange = {"text": text, field: f"stranger-{field}"}
                assert client.post("/v1/turns", json=strange).status_code == 404
            client.post("/v1/chat/completions", json={"model": "stranger-model", "messages": []})
        asyncio.run(_surge(server.url))
        text = httpx2.get(f"{server.url}/metrics", timeout=20).text
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


async def _surge(url: str) -> None:
    """More turns at once than are admitted and may wait."""
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        turns = [client.post("/v1/turns", json={"text": "Hi"}) for _ in range(60)]
        assert {each.status_code for each in await asyncio.gather(*turns)} == {200, 503}


def test_every_metric_exists(exported: dict[str, list[dict[str, str]]]) -> None:
    asked = {name for each in expressions() for name, _ in _SELECTOR.findall(each)}
    asked = {name for name in asked if not name.startswith("seawall_") or "p99" not in name}
    assert asked - set(exported) == set()
    # Refusals and a price were part of it, else the test would not have seen them.
    assert {"seawall_turns_refused_total", "seawall_model_cost_total"} <= set(exported)


def test_every_label_exists(exported: dict[str, list[dict[str, str]]]) -> None:
    """Those of the samples, and those that Prometheus adds to what it scrapes."""
    for expression in expressions():
        for name, selector in _SELECTOR.findall(expression):
            for label, operator, value in re.findall(r"(\w+)(=~|!~|!=|=)\"([^\"]*)\"", selector):
                if label in ("namespace", "service"):
                    continue
                values = {labels.get(label) for labels in exported[name]}
                assert None not in values, (name, label)
                if operator == "=" and (label, value) != ("outcome", "throttled"):
                    assert value in values, (name, label, value)
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            known = {key for each in exported.values() for found in each for key in found}
            assert set(re.split(r",\s*", labels)) <= known | {"namespace", "service"}, expression


def test_client_input_creates_no_series(exported: dict[str, list[dict[str, str]]]) -> None:
    values = {value for each in exported.values() for labels in each for value in labels.values()}
    assert not [value for value in values if "stranger" in value]
    ours = {name: each for name, each in exported.items() if name.startswith("seawall_")}
    assert (
        max(len({tuple(sorted(labels.items())) for labels in each}) for each in ours.values()) < 300
    )


def test_prometheus_accepts_rules_and_expressions(tmp_path: Path) -> None:
    require(missing_promtool())
    asked = [each for found in dashboard().values() for each in found]
    recorded = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(asked)]
    panels = tmp_path / "panels.yaml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    for path in (FILES / "rules.yaml", panels):
        done = subprocess.run(
            ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires(tmp_path: Path) -> None:
    """Prometheus' own test of rules: series in, alerts out."""
    require(missing_promtool())
    calls, seconds = "seawall_model_calls_total", "seawall_stage_seconds_bucket"
    series = [
        ("seawall_turns_total", 'outcome="completed"', "0+60x30"),
        ("seawall_turns_total", 'outcome="upstream-failed"', "0+10x30"),
        ("seawall_turns_refused_total", 'reason="full"', "0+10x30"),
        ("seawall_model_breaker_open", 'model="default"', "2x30"),
        ("seawall_turns_in_flight", 'pod="p"', "95x30"),
        ("seawall_turns_in_flight_limit", 'pod="p"', "100x30"),
        ("seawall_turns_queued", 'priority="normal"', "3x30"),
        ("seawall_event_loop_lag_seconds", 'pod="p"', "0.7x30"),
        (calls, 'model="d",outcome="throttled"', "0+9x30"),
        (seconds, 'stage="first_text",le="5"', "0+1x30"),
        (seconds, 'stage="first_text",le="10"', "0+9x30"),
        (seconds, 'stage="first_text",le="+Inf"', "0+9x30"),
    ]
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    checks = [
        {
            "expr": f'ALERTS{{alertname="{alert}",alertstate="firing"}} * 0 + 1',
            "eval_time": "20m",
        }
        for alert in alerts
    ]
    expected = {
        "SeawallModelBreakerOpen": 'model="default",',
        "SeawallModelThrottled": 'model="d",',
    }
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules() if "alert" in rule}  # type: ignore[index]
    for check, alert in zip(checks, alerts, strict=True):
        labels = (
            f'{{alertname="{alert}",alertstate="firing",{expected.get(alert, "")}'
            f'namespace="a",service="s",severity="{severities[alert]}"}}'
        )
        check["exp_samples"] = [{"labels": labels, "value": 1}]  # type: ignore[assignment]
    tests = {
        "rule_files": [str(FILES / "rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {
                        "series": f'{name}{{namespace="a",service="s",{labels}}}',
                        "values": values,
                    }
                    for name, labels, values in series
                ],
                "promql_expr_test": checks,
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_autoscaling_counts_the_turns_of_the_release_before_once(tmp_path: Path) -> None:
    """During an upgrade some pods export the old names only, and others both names."""
    require(missing_promtool())
    query = only(rendered(LARGE), "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    mine = 'namespace="ai",service="shop-seawall",pod'
    series = {
        f'seawall_in_flight{{{mine}="before"}}': "40x1",
        f'seawall_queued{{{mine}="before",priority="normal"}}': "2x1",
        f'seawall_in_flight{{{mine}="after"}}': "500x1",
        f'seawall_turns_in_flight{{{mine}="after"}}': "500x1",
        f'seawall_queued{{{mine}="after",priority="normal"}}': "7x1",
        f'seawall_turns_queued{{{mine}="after",priority="normal"}}': "7x1",
        'seawall_turns_in_flight{namespace="ai",service="another",pod="other"}': "1000x1",
    }
    check = {"expr": query, "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": 549}]}
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    path = tmp_path / "test.yaml"
    tests = [{"interval": "1m", "input_series": inputs, "promql_expr_test": [check]}]
    path.write_text(yaml.safe_dump({"tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

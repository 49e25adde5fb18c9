"""The chart passes what Kubernetes and its extensions ask, and a policy of our own."""

import ipaddress
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from seawall.config import parse_settings
from tests.parts import require
from tests.parts.tools import CRDS, missing_crds
from tests.servers import ROOT
from tests.ship.chart import CHART, LARGE, VALUES, helm, loaded, only, rendered

each_size = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
KUBERNETES = "1.34"


@each_size
def test_helm_lint(values: dict[str, Any]) -> None:
    report = helm("chart").lint(CHART, values, strict=True)
    assert report["errors"] == []
    # One remark of the lowest severity: a chart of ours has no icon.
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


@each_size
def test_objects_match_the_schemas_of_kubernetes(values: dict[str, Any]) -> None:
    objects = [each for each in rendered(values) if _is_built_in(each)]
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= {each["kind"] for each in objects}
    for each in objects:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_objects_match_the_schemas_of_operators() -> None:
    require(missing_crds())
    objects = [each for values in VALUES.values() for each in rendered(values)]
    custom = [each for each in objects if not _is_built_in(each)]
    assert {each["kind"] for each in custom} == {
        "EC2NodeClass", "ExternalSecret", "HTTPRoute", "NodePool", "PrometheusRule",
        "ScaledObject", "ServiceMonitor",
    }  # fmt: skip
    assert _faults(custom) == []
    # The validators do see faults.
    broken = json.loads(json.dumps(only(rendered(LARGE), "ScaledObject")))
    broken["spec"]["maxReplicaCount"] = "many"
    assert len(_faults([broken])) == 1


@each_size
def test_policy(values: dict[str, Any]) -> None:
    objects = rendered(values)
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 10_000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["limits"]["ephemeral-storage"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert {"startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} <= set(container)
        assert not [each for each in container["image"].split(":")[1:] if each == "latest"]
    assert all("hostPath" not in volume for volume in pod["volumes"])
    assert not [each for each in objects if each["kind"] in ("ClusterRole", "Role", "Secret")]


@each_size
def test_a_pod_outlives_its_longest_turn(values: dict[str, Any]) -> None:
    pod = only(rendered(values), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    turn, drain = float(env["SEAWALL_TURN__TURN"]), float(env["SEAWALL_SERVER__DRAIN_SECONDS"])
    steps = container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain
    steps += float(env["SEAWALL_SERVER__SHUTDOWN_DELAY_SECONDS"])
    assert turn < drain
    assert steps < pod["terminationGracePeriodSeconds"]


def test_route_timeouts_fit_a_turn() -> None:
    route = only(rendered(LARGE), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "190s", "backendRequest": "190s"}
    assert [each["path"]["value"] for each in rule["matches"]] == [
        "/v1"
    ]  # neither metrics nor probes
    annotations = only(rendered(VALUES["ingress"]), "Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    idle = annotations["alb.ingress.kubernetes.io/load-balancer-attributes"]
    assert idle == "idle_timeout.timeout_seconds=70"


def test_a_configuration_is_passed_on_unchanged() -> None:
    config = only(
        [each for each in rendered(LARGE) if "seawall.toml" in each.get("data", {})], "ConfigMap"
    )
    assert config["data"]["seawall.toml"] == LARGE["config"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"autoscaling": {"maximum": 0}}, "maximum"),
        ({"replica": 3}, "replica"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"route": {"kind": "loadbalancer"}}, "kind"),
        ({"resources": {"memory": "1024"}}, "memory"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, Any], named: str) -> None:
    with loaded() as chart, pytest.raises(helm("errors").HelmError, match=named):
        chart.validate_schema(wrong)


def test_variables_of_the_chart_are_settings() -> None:
    """Every variable that the chart sets is one that Seawall reads, with a value that it takes."""
    (container,) = only(rendered(LARGE), "Deployment")["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    settings = parse_settings(
        '[agents.one]\ninstructions = "x"\n' + _MODEL, environment=environment
    )
    assert settings.server.host == "0.0.0.0"
    assert settings.sessions.table == "shop-sessions"
    assert settings.turn.turn == 180
    assert settings.telemetry.sample == 0.05


_MODEL = '[models.default]\nkind = "anthropic"\nmodel = "m"\n'


def _is_built_in(found: dict[str, Any]) -> bool:
    group = found["apiVersion"].rpartition("/")[0]
    inside = group.endswith(".k8s.io") and group != "gateway.networking.k8s.io"
    return "." not in group or inside


def _faults(objects: list[dict[str, Any]]) -> list[str]:
    done = subprocess.run(
        ["node", str(ROOT / "tests/ship/kubernetes.mjs"), str(CRDS)],
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_chart_and_the_project_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


ONE = {"sessions": {"store": "sqlite", "claim": "data"}}


@pytest.mark.parametrize(
    "many",
    [
        {},
        {"autoscaling": {"mode": "none"}},
        {"autoscaling": {"mode": "none"}, "replicas": 3},
        {"autoscaling": {"mode": "keda", "minimum": 1, "maximum": 2}, "replicas": 1},
        {"autoscaling": {"mode": "hpa", "minimum": 1, "maximum": 10}, "replicas": 1},
    ],
)
def test_sqlite_is_for_one_pod(many: dict[str, Any], tmp_path: Path) -> None:
    with loaded() as chart, pytest.raises(helm("errors").HelmError, match="replicas=1") as refused:
        chart.validate_schema({**ONE, **many})
    assert "/sessions/store" in str(refused.value)
    # Also where the schema is not asked: helm --skip-schema-validation.
    shutil.copytree(CHART, tmp_path / "chart")
    (tmp_path / "chart/values.schema.json").unlink()
    with (
        loaded(tmp_path / "chart") as chart,
        pytest.raises(helm("errors").HelmError, match="sqlite is for one pod"),
    ):
        chart.render({**ONE, **many}, name="shop", namespace="ai")


def test_the_store_is_named_in_one_place() -> None:
    with loaded() as chart, pytest.raises(helm("errors").HelmError, match="STORE"):
        chart.validate_schema({"env": {"SEAWALL_SESSIONS__STORE": "sqlite"}})


def test_the_database_of_one_pod_is_on_its_volume() -> None:
    deployment = only(rendered(VALUES["small"]), "Deployment")["spec"]
    assert deployment["strategy"] == {"type": "Recreate"}
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "data"]
    assert env["SEAWALL_SESSIONS__PATH"] == f"{mount['mountPath']}/sessions.db"
    assert not env["SEAWALL_SESSIONS__PATH"].startswith("/tmp")
    (volume,) = [each for each in pod["volumes"] if each["name"] == "data"]
    assert volume["persistentVolumeClaim"] == {"claimName": "shop-data"}
    with pytest.raises(helm("errors").HelmError, match=r"sessions\.claim"):
        rendered({**VALUES["small"], "sessions": {"store": "sqlite"}})


def _reaches(rules: list[dict[str, Any]], address: str, port: int, protocol: str) -> bool:
    found = ipaddress.ip_address(address)
    for rule in rules:
        ports = [(each["port"], each["protocol"]) for each in rule["ports"]]
        for block in (each["ipBlock"] for each in rule.get("to", []) if "ipBlock" in each):
            within = found in ipaddress.ip_network(block["cidr"])
            excepted = any(found in ipaddress.ip_network(each) for each in block.get("except", []))
            if within and not excepted and (port, protocol) in ports:
                return True
    return False


def test_egress_of_the_network_policy() -> None:
    rules = only(rendered({}), "NetworkPolicy")["spec"]["egress"]
    for address in ("203.0.113.7", "2001:db8::7", "2600:1f18::1"):
        assert _reaches(rules, address, 443, "TCP")
        assert not _reaches(rules, address, 80, "TCP")
        assert not _reaches(rules, address, 53, "UDP")
    for protocol in ("TCP", "UDP"):  # NodeLocal DNSCache
        assert _reaches(rules, "169.254.20.10", 53, protocol)
    for agent in ("169.254.170.23", "fd00:ec2::23"):  # EKS Pod Identity
        assert _reaches(rules, agent, 80, "TCP")
    for node in ("169.254.169.254", "fd00:ec2::254"):  # its credentials are not the pods'
        assert not any(_reaches(rules, node, port, "TCP") for port in (80, 443))

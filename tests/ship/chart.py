"""The chart, rendered by Helm itself; values from nothing at all to everything."""

from importlib import import_module
from typing import Any

import yaml

from tests.servers import ROOT

CHART = ROOT / "deploy/helm/seawall"

SMALL: dict[str, Any] = {
    "replicas": 1,
    "resources": {"cpu": "250m", "memory": "256Mi", "cpuLimit": ""},
    "sessions": {"store": "sqlite", "claim": "shop-data"},
    "autoscaling": {"mode": "none"},
    "networkPolicy": {"enabled": False},
    "serviceAccount": {"create": False},
    "topologySpread": {"zones": False, "nodes": False},
}
LARGE: dict[str, Any] = {
    "image": {"repository": "registry.example/shop", "digest": "sha256:" + "a" * 64},
    "architecture": "arm64",
    "workers": 4,
    "resources": {"cpu": "4", "memory": "8Gi", "cpuLimit": "4"},
    "config": '[agents.one]\ninstructions = "Help: {{ .Values }}"\n',
    "env": {"SEAWALL_TURN__COMMIT": "5"},
    "sessions": {"table": "shop-sessions", "region": "eu-central-1"},
    "turnSeconds": 180,
    "route": {
        "kind": "gateway",
        "hosts": ["shop.example"],
        "gateway": {"name": "public", "namespace": "gateways"},
    },
    "autoscaling": {
        "mode": "keda",
        "minimum": 10,
        "maximum": 400,
        "inFlightTarget": 900,
        "keda": {"fallbackReplicas": 40},
        "schedule": [
            {
                "start": "45 19 * * FRI",
                "end": "16 21 * * FRI",
                "timezone": "Europe/Berlin",
                "replicas": 200,
            }
        ],
    },
    "serviceAccount": {"roleArn": "arn:aws:iam::123456789012:role/shop"},
    "secrets": {
        "existing": ["shop"],
        "external": {
            "enabled": True,
            "variables": {"MODEL_API_KEY": {"key": "k", "property": "p"}},
        },
    },
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "gateways"}}}]},
    "telemetry": {"endpoint": "http://collector.monitoring:4318", "sample": 0.05},
    "metrics": {
        "serviceMonitor": True,
        "rules": True,
        "dashboard": True,
        "labels": {"release": "prometheus"},
    },
    "karpenter": {
        "enabled": True,
        "role": "nodes",
        "clusterName": "shop",
        "instances": ["c7g.large"],
    },
    "priorityClassName": "customers",
}
INGRESS: dict[str, Any] = {
    "route": {
        "kind": "ingress",
        "hosts": ["shop.example"],
        "ingress": {"className": "alb", "tlsSecret": "shop-tls"},
    },
    "autoscaling": {"mode": "hpa", "hpa": {"inFlight": True}},
    "karpenter": {"enabled": True, "nodeClass": "default"},
}
VALUES = {"default": {}, "small": SMALL, "large": LARGE, "ingress": INGRESS}


def helm() -> Any:
    """Helm's library: not imported before a test needs it, as it has threads, in Go.

    A worker of pytest-xdist, a fork of what has imported this file, would not have them.
    """
    return import_module("helm_python")


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects."""
    with helm().Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values, name="shop", namespace="ai")
    return [
        document
        for path, text in sorted(texts.items())
        if not path.endswith("NOTES.txt")
        for document in yaml.load_all(text, yaml.CSafeLoader)
        if document
    ]


def only(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found

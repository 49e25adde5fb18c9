"""Install what checks the deployment artefacts; run this file. See install_dynamodb_local.

AWS's SAM CLI, in an environment of its own because of what it pins. And the validators of
Kubernetes' custom resources, which the npm packages @kubernetes-models/* have compiled from the
projects' own definitions; their install scripts are not run. And Prometheus' promtool, of Debian.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["CRDS", "missing_crds", "missing_promtool", "missing_sam", "sam"]

_VENV = Path(__file__).parents[1] / ".venv"
_SAM = _VENV / ".sam"
_SAM_VERSION = "1.170.0"
CRDS = _VENV / ".crds"
_MODELS = {
    "external-secrets": "0.5.2",
    "gateway-api": "0.5.1",
    "karpenter": "2.0.0",
    "keda": "0.4.2",
    "prometheus-operator": "6.0.0",
}


def sam() -> Path:
    """The command."""
    return _SAM / "bin/sam"


def missing_sam() -> str:
    """What keeps SAM from running here; empty if nothing does."""
    return "" if sam().exists() else "AWS's SAM CLI is not installed: make parts"


def missing_crds() -> str:
    """What keeps custom resources from being validated here; empty if nothing does."""
    if shutil.which("node") is None:
        return "node is not installed: apt install nodejs npm"
    there = all((CRDS / "node_modules/@kubernetes-models" / name).is_dir() for name in _MODELS)
    return "" if there else "the validators of custom resources are not installed: make parts"


def missing_promtool() -> str:
    """What keeps Prometheus' rules from being checked here; empty if nothing does."""
    return "" if shutil.which("promtool") else "promtool is not installed: apt install prometheus"


def main() -> int:
    """Install them where that can be done."""
    root = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if root and missing_promtool():
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "prometheus")
    if root and shutil.which("npm") is None:
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "nodejs", "npm")
    if missing_sam():
        _run(sys.executable, "-m", "venv", str(_SAM))
        pip = (str(_SAM / "bin/python"), "-m", "pip", "install", "--quiet")
        _run(*pip, "--disable-pip-version-check", f"aws-sam-cli=={_SAM_VERSION}")
    if missing_crds() and shutil.which("npm") is not None:
        CRDS.mkdir(parents=True, exist_ok=True)
        wanted = [f"@kubernetes-models/{name}@{version}" for name, version in _MODELS.items()]
        options = ("--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save")
        _run("npm", "install", *options, "--prefix", str(CRDS), *wanted)
    missing = [each for each in (missing_sam(), missing_crds(), missing_promtool()) if each]
    for reason in missing:
        sys.stderr.write(f"{reason}; tests that need it will skip\n")
    return int(bool(missing) and os.environ.get("SEAWALL_REQUIRE_ALL") == "1")


def _run(*command: str) -> None:
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())

"""Programs that check artefacts, each in its own folder under `.venv`.

AWS's SAM CLI, Locust and the clients of OpenAI's APIs have environments of their own because of
what they pin; their versions and hashes are in `requirements/`. The validators of Kubernetes'
custom resources come from the npm packages @kubernetes-models/*, which compile them from the
projects' own definitions; the authorization server is the npm package oidc-provider; Prism plays
services of OpenAPI documents, and swagger-client calls them. Install scripts of npm packages are
not run.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.parts.system import missing_node

__all__ = [
    "CRDS",
    "OIDC",
    "OPENAPI",
    "install",
    "locust",
    "mcp_time",
    "missing_crds",
    "missing_locust",
    "missing_mcp_time",
    "missing_oidc",
    "missing_openai_clients",
    "missing_openapi",
    "missing_sam",
    "openai_clients",
    "sam",
]

_ROOT = Path(__file__).resolve().parents[2]
_VENV = _ROOT / ".venv"
CRDS = _VENV / ".crds"
_MODELS = {
    "external-secrets": "0.5.2",
    "gateway-api": "0.5.1",
    "karpenter": "2.0.0",
    "keda": "0.4.2",
    "prometheus-operator": "6.0.0",
}
OIDC = _VENV / ".oidc"
_OIDC_PACKAGE = "oidc-provider@9.13.3"
OPENAPI = _VENV / ".openapi"
_OPENAPI_PACKAGES = ("@stoplight/prism-cli@5.14.2", "swagger-client@3.37.3")


def sam() -> Path:
    """SAM's command."""
    return _VENV / ".sam/bin/sam"


def locust() -> Path:
    """Locust's command."""
    return _VENV / ".locust/bin/locust"


def mcp_time() -> Path:
    """The command of the public MCP server `mcp-server-time`."""
    return _VENV / ".mcp-time/bin/mcp-server-time"


def openai_clients() -> Path:
    """The Python in which programs that speak OpenAI's APIs are installed."""
    return _VENV / ".openai-clients/bin/python"


def missing_openai_clients() -> str:
    """Why those programs cannot run here; empty if they can."""
    there = openai_clients().with_name("llm").exists()
    return "" if there else "the clients of OpenAI's APIs are not installed: make parts"


def missing_mcp_time() -> str:
    """Why `mcp-server-time` cannot run here; empty if it can."""
    return "" if mcp_time().exists() else "mcp-server-time is not installed: make parts"


def missing_sam() -> str:
    """Why SAM cannot run here; empty if it can."""
    return "" if sam().exists() else "AWS's SAM CLI is not installed: make parts"


def missing_locust() -> str:
    """Why Locust cannot run here; empty if it can."""
    return "" if locust().exists() else "Locust is not installed: make parts"


def missing_crds() -> str:
    """Why custom resources cannot be validated here; empty if they can."""
    there = all((CRDS / "node_modules/@kubernetes-models" / name).is_dir() for name in _MODELS)
    no_validators = "the validators of custom resources are not installed: make parts"
    return missing_node() or ("" if there else no_validators)


def missing_oidc() -> str:
    """Why the authorization server cannot run here; empty if it can."""
    there = (OIDC / "node_modules/oidc-provider").is_dir()
    return missing_node() or ("" if there else "oidc-provider is not installed: make parts")


def missing_openapi() -> str:
    """Why no service of an OpenAPI document can be played here; empty if it can."""
    names = [each.rpartition("@")[0] for each in _OPENAPI_PACKAGES]
    there = all((OPENAPI / "node_modules" / name).is_dir() for name in names)
    return missing_node() or ("" if there else "Prism or swagger-client is missing: make parts")


def install() -> None:
    """Install what is missing."""
    locks = (
        (sam(), "sam.lock"),
        (locust(), "locust.lock"),
        (mcp_time(), "mcp-time.lock"),
        (openai_clients().with_name("llm"), "openai-clients.lock"),
    )
    for command, lock in locks:
        if not command.exists():
            folder = command.parents[1]
            _run(sys.executable, "-m", "venv", str(folder))
            pip = (str(folder / "bin/python"), "-m", "pip", "install", "--quiet")
            lock_file = str(_ROOT / "requirements" / lock)
            _run(
                *pip,
                "--disable-pip-version-check",
                "--no-deps",
                "--require-hashes",
                "-r",
                lock_file,
            )
    if missing_crds():
        models = [f"@kubernetes-models/{name}@{version}" for name, version in _MODELS.items()]
        _install_from_npm(CRDS, *models)
    if missing_oidc():
        _install_from_npm(OIDC, _OIDC_PACKAGE)
    if missing_openapi():
        _install_from_npm(OPENAPI, *_OPENAPI_PACKAGES)


def _install_from_npm(folder: Path, *packages: str) -> None:
    if (npm := shutil.which("npm")) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        options = ("--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save")
        _run(npm, "install", *options, "--prefix", str(folder), *packages)


def _run(*command: str) -> None:
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)

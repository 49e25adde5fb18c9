"""Programs that check artefacts, each in its own folder under `.venv`.

AWS's SAM CLI and Locust have environments of their own because of what they pin; their versions
and hashes are in `requirements/`. The validators of Kubernetes' custom resources come from the
npm packages @kubernetes-models/*, which compile them from the projects' own definitions; what
plays services of OpenAPI documents, and another client of them, come from npm, too. Their install
scripts are not run.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.parts.system import missing_node

__all__ = [
    "CRDS",
    "OPENAPI",
    "install",
    "locust",
    "missing_crds",
    "missing_locust",
    "missing_openapi",
    "missing_sam",
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
OPENAPI = _VENV / ".openapi"
_OPENAPI_PACKAGES = {"@stoplight/prism-cli": "5.14.2", "swagger-client": "3.37.3"}


def sam() -> Path:
    """SAM's command."""
    return _VENV / ".sam/bin/sam"


def locust() -> Path:
    """Locust's command."""
    return _VENV / ".locust/bin/locust"


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


def missing_openapi() -> str:
    """Why no service of an OpenAPI document can be played here; empty if it can."""
    there = all((OPENAPI / "node_modules" / name).is_dir() for name in _OPENAPI_PACKAGES)
    return missing_node() or ("" if there else "Prism and swagger-client are missing: make parts")


def install() -> None:
    """Install what is missing."""
    for command, lock in ((sam(), "sam.lock"), (locust(), "locust.lock")):
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
        _install_npm(CRDS, {f"@kubernetes-models/{name}": each for name, each in _MODELS.items()})
    if missing_openapi():
        _install_npm(OPENAPI, _OPENAPI_PACKAGES)


def _install_npm(folder: Path, packages: dict[str, str]) -> None:
    npm = shutil.which("npm")
    if npm is not None:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}@{version}" for name, version in packages.items()]
        options = ("--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save")
        _run(npm, "install", *options, "--prefix", str(folder), *wanted)


def _run(*command: str) -> None:
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)

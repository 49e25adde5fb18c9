"""Where the chart and the templates are, and how what was sized is written beside them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import seawall
from seawall.errors import ConfigError

__all__ = ["deploy_folder", "write_eks", "write_lambda"]

_STACK = "seawall"


def deploy_folder() -> Path:
    """The folder `deploy`: of the installed package, or of the checkout.

    Raises:
        ConfigError: there is neither.
    """
    package = Path(seawall.__file__).parent
    for folder in (package / "ship/deploy", package.parents[1] / "deploy"):
        if (folder / "helm/seawall/Chart.yaml").is_file():
            return folder
    raise ConfigError("the folder deploy is missing from this installation of Seawall")


def write_eks(out: Path, values: Mapping[str, Any], source: str) -> list[Path]:
    """The chart with its values, and the template of what is shared; the files written."""
    deploy = deploy_folder()
    _make(out)
    shutil.copytree(deploy / "helm/seawall", out / "seawall", dirs_exist_ok=True)
    shutil.copy(deploy / "shared/template.yaml", out / "shared.yaml")
    text = f"# Written by seawall ship eks from {source}; the chart's values.yaml has the rest.\n"
    (out / "values.yaml").write_text(text + _yaml(values), encoding="utf-8")
    return [out / "values.yaml", out / "seawall", out / "shared.yaml"]


def write_lambda(
    out: Path, template: str, parameters: Mapping[str, str], *, region: str, source: str
) -> list[Path]:
    """The template with SAM's configuration, and that of what is shared; the files written."""
    deploy = deploy_folder()
    _make(out)
    shutil.copy(deploy / "lambda" / template, out / "template.yaml")
    shutil.copy(deploy / "shared/template.yaml", out / "shared.yaml")
    overrides = "\n".join(f"  {json.dumps(f'{k}={json.dumps(v)}')}," for k, v in parameters.items())
    (out / "samconfig.toml").write_text(
        f"# Written by seawall ship lambda from {source}.\n"
        "version = 0.1\n\n"
        "[default.deploy.parameters]\n"
        f'stack_name = "{_STACK}"\n'
        f'region = "{region}"\n'
        'capabilities = "CAPABILITY_IAM"\n'
        "resolve_s3 = true\n"
        "parameter_overrides = [\n"
        f"{overrides}\n"
        "]\n",
        encoding="utf-8",
    )
    return [out / "samconfig.toml", out / "template.yaml", out / "shared.yaml"]


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made: {error.strerror}") from error


def _yaml(value: Mapping[str, Any], indent: int = 0) -> str:
    """Tables and lists of them, in YAML; whatever else there is as JSON, which is YAML."""
    lines: list[str] = []
    space = " " * indent
    for key, each in value.items():
        if isinstance(each, Mapping) and each:
            lines.append(f"{space}{key}:\n{_yaml(each, indent + 2)}")
        else:
            lines.append(f"{space}{key}: {json.dumps(each)}\n")
    return "".join(lines)

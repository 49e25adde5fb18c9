"""The files of a deployment: Helm chart, SAM templates, image context."""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import seawall
from seawall.errors import ConfigError
from seawall.ship.lambda_template import FunctionOptions, fill_template, function_sections
from seawall.ship.output import yaml_text

__all__ = ["deploy_folder", "eks_files", "image_files", "lambda_files"]

_STACK = "seawall"
_TIME = (1980, 1, 1, 0, 0, 0)
_PACKAGE = "seawall.zip"
# Parts of the package that no deployment needs.
_NOT_AT_RUNTIME = ("ship/deploy/", "lab/demo_files/", "__pycache__")


def deploy_folder() -> Path:
    """Find the folder `deploy`, in the installed package or in the checkout.

    Raises:
        ConfigError: It is in neither.
    """
    package = Path(seawall.__file__).parent
    for folder in (package / "ship/deploy", package.parents[1] / "deploy"):
        if (folder / "helm/seawall/Chart.yaml").is_file():
            return folder
    raise ConfigError("the folder deploy is missing from this installation of Seawall")


def eks_files(values: Mapping[str, Any], source: str) -> dict[str, bytes]:
    """The chart with its values, the shared stack, and the image context.

    Args:
        values: Of the chart.
        source: The plan's name, for the comment at the top.
    """
    head = f"# Written by seawall ship eks from {source}; the chart's values.yaml has the rest.\n"
    return {
        "values.yaml": (head + yaml_text(values)).encode(),
        **_folder("helm/seawall", "seawall"),
        **_shared(),
        **{f"image/{name}": content for name, content in image_files().items()},
    }


def lambda_files(
    template: str,
    sized: Mapping[str, str],
    options: FunctionOptions,
    *,
    region: str,
    source: str,
    parameters: Mapping[str, str],
) -> dict[str, bytes]:
    """The function's template with SAM's configuration, and the shared stack.

    Args:
        template: Its file's name in deploy/lambda.
        sized: See `lambda_parameters`.
        options: What the plan does not decide.
        region: AWS region.
        source: The plan's name, for the comment at the top.
        parameters: Values of the template's parameters, for SAM.
    """
    text = (deploy_folder() / "lambda" / template).read_text(encoding="utf-8")
    text = fill_template(text, function_sections(sized, options), options.shared_stack)
    overrides = "".join(
        f"  {json.dumps(f'{name}={json.dumps(value)}')},\n" for name, value in parameters.items()
    )
    config = (
        f"# Written by seawall ship lambda from {source}.\n"
        "version = 0.1\n\n"
        "[default.deploy.parameters]\n"
        f'stack_name = "{_STACK}"\n'
        f'region = "{region}"\n'
        'capabilities = "CAPABILITY_IAM"\n'
        "resolve_s3 = true\n"
    )
    if overrides:
        config += f"parameter_overrides = [\n{overrides}]\n"
    return {
        "template.yaml": f"# Written by seawall ship lambda from {source}.\n{text}".encode(),
        "samconfig.toml": config.encode(),
        **_shared(),
    }


def image_files() -> dict[str, bytes]:
    """The context of the image's build: Dockerfile, packages by hash, and this installation."""
    deploy = deploy_folder()
    return {
        "Dockerfile": (deploy / "Dockerfile").read_bytes(),
        "build.sh": (deploy / "image/build.sh").read_bytes(),
        "requirements.lock": (deploy / "image/requirements.lock").read_bytes(),
        _PACKAGE: _package(),
    }


def _shared() -> dict[str, bytes]:
    shared = deploy_folder() / "shared"
    return {
        "shared.yaml": (shared / "template.yaml").read_bytes(),
        "routing.yaml": (shared / "routing.yaml").read_bytes(),
    }


def _folder(source: str, target: str) -> dict[str, bytes]:
    folder = deploy_folder() / source
    return {
        f"{target}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _package() -> bytes:
    """The installed package as a zip, with its metadata."""
    folder = Path(seawall.__file__).parent
    found = distribution("seawall")
    metadata = found.read_text("METADATA") or ""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for path in _runtime_files(folder):
            name = f"seawall/{path.relative_to(folder).as_posix()}"
            packed.writestr(_entry(name), path.read_bytes())
        packed.writestr(_entry(f"seawall-{found.version}.dist-info/METADATA"), metadata)
    return written.getvalue()


def _runtime_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(each in name for each in _NOT_AT_RUNTIME):
            yield path


def _entry(name: str) -> zipfile.ZipInfo:
    """A reproducible entry; files without a suffix, such as a bootstrap, are executable."""
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    entry.external_attr = (0o100755 if "." not in name.rpartition("/")[2] else 0o100644) << 16
    return entry

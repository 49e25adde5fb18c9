"""Where the chart, the templates and the image's files are, and what of them is written out."""

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
from seawall.ship.yaml_text import yaml_text

__all__ = ["deploy_folder", "eks_files", "image_files", "lambda_files"]

_STACK = "seawall"
_TIME = (1980, 1, 1, 0, 0, 0)
_PACKAGE = "seawall.zip"
# Nothing that is deployed needs these of the package.
_NOT_AT_RUNTIME = ("ship/deploy/", "__pycache__")


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


def eks_files(values: Mapping[str, Any], source: str) -> dict[str, bytes]:
    """The chart with its values, the template of what is shared, and what makes the image.

    Args:
        values: Of the chart.
        source: The plan's name, for the remark at the head.
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
    """The function's template with SAM's configuration, and the template of what is shared.

    Args:
        template: Its file's name in deploy/lambda.
        sized: What the plan says of the function; see `lambda_parameters`.
        options: What it does not say.
        region: Of AWS.
        source: The plan's name, for the remark at the head.
        parameters: Of the template, as SAM is to give them.
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
    """The context of the image's build: its Dockerfile, hashed packages, and this very Seawall."""
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
    """The installed package as a zip, with the metadata that says its version."""
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
    """The same bytes at any time and on any system; what starts a function may be run."""
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    entry.external_attr = (0o100755 if "." not in name.rpartition("/")[2] else 0o100644) << 16
    return entry

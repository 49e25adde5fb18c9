"""A question from a TOML file: workload, objective, options, prices, and what is deployed.

::

    [arrivals]                     # the tables of a workload: arrivals, service, clients
    daily = "1200000"
    spikes = ["5000@20s"]

    [objective]                    # fields of Objective
    first_token_p99 = "4s"

    [options]                      # Options; [each]: PerRequest; [levers]: LeverShares
    announced = true

    [prices]
    region = "eu-central-1"        # or file = "prices.toml", beside this one
    discounts = ["ec2=28%"]

    [measured]                     # see `measured.applying`
    files = ["tuning.json"]        # beside this one

    [deployed]                     # for --check: the deployed configuration
    platform = "eks"
    pods = 6

    [check]                        # for --check: the expected answer
    choice = "eks"
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.notation import read_document
from seawall.plan.inputs.platforms import PLATFORMS, PlatformName
from seawall.plan.inputs.prices import Prices, load_prices, parse_discounts, read_prices
from seawall.plan.inputs.question import LeverShares, Objective, Options, PerRequest, Question
from seawall.plan.inputs.workload import Workload
from seawall.plan.inputs.workload_file import (
    WORKLOAD_TABLES,
    with_fields,
    with_units,
    workload_of,
)

__all__ = ["Deployed", "QuestionFile", "prices_from", "read_question"]

_TABLES = WORKLOAD_TABLES | {"objective", "options", "each", "levers", "prices"}
_TABLES |= {"measured", "deployed", "check"}


class Deployed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The deployed configuration.

    Attributes:
        platform: Its name.
        memory_mb: Of a function.
        provisioned: Concurrency of a function.
        functions: Identical ones behind a router.
        minimum: Of managed instances.
        pods: On EKS.
        cores: Of a pod.
    """

    platform: PlatformName
    memory_mb: int = 1_769
    provisioned: int = 0
    functions: int = 1
    minimum: int = 3
    pods: int = 3
    cores: float = 0.85


class QuestionFile(Struct, frozen=True, kw_only=True):
    """The content of a file.

    Attributes:
        question: Without what `measured` says.
        deployed: The deployed configuration.
        choice: The platform expected by `check`.
        measured: Files for `with_measured`.
    """

    question: Question
    deployed: Deployed | None = None
    choice: PlatformName | None = None
    measured: tuple[Path, ...] = ()


def prices_from(
    file: Path | None, region: str, discounts: dict[str, float], architecture: str
) -> Prices:
    """The prices of a file, else those of a region, with discounts."""
    if file is not None:
        prices = read_prices(file, architecture=architecture)
    else:
        prices = load_prices(region)
    return structs.replace(prices, discounts=discounts)


def read_question(path: Path, default: Workload | None = None) -> QuestionFile:
    """Read a question.

    Args:
        path: A TOML file.
        default: The workload, if the file does not describe one.

    Raises:
        ConfigError: File and key are named.
    """
    document = read_document(path)
    try:
        return _parsed(document, path.parent, default)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _parsed(document: dict[str, Any], folder: Path, default: Workload | None) -> QuestionFile:
    unknown = set(document) - _TABLES
    if unknown:
        raise ConfigError(f"{min(unknown)}: unknown; known: {', '.join(sorted(_TABLES))}")
    given = set()
    for name in ("objective", "options", "each", "levers", "prices"):
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: is not a table")
        given |= {f"{name}.{key}" for key in table} | ({name} if table else set())
    described = WORKLOAD_TABLES & set(document)
    workload = workload_of(document, folder) if described or default is None else default
    options = with_fields(Options(), document.get("options", {}), "options")
    pricing = document.get("prices", {})
    unknown = set(pricing) - {"region", "file", "discounts"}
    if unknown:
        raise ConfigError(f"prices.{min(unknown)}: unknown; known: region, file, discounts")
    file = folder / str(pricing["file"]) if "file" in pricing else None
    discounts = parse_discounts(str(each) for each in pricing.get("discounts", ()))
    region = str(pricing.get("region", "us-east-1"))
    prices = prices_from(file, region, discounts, options.architecture)
    stated = document.get("objective", {})
    question = Question(
        workload=workload,
        objective=with_fields(Objective(), stated, "objective", prices.currency),
        options=options,
        each=with_fields(PerRequest(), document.get("each", {}), "each"),
        levers=with_fields(LeverShares(), document.get("levers", {}), "levers"),
        prices=prices,
        given=frozenset(given),
    )
    return QuestionFile(
        question=question,
        deployed=_deployed(document),
        choice=_expected(document.get("check", {})),
        measured=_measured(document.get("measured", {}), folder),
    )


def _measured(table: object, folder: Path) -> tuple[Path, ...]:
    if not isinstance(table, dict) or set(table) - {"files"}:
        raise ConfigError("measured: must be a table with the key files")
    files = table.get("files", [])
    if not isinstance(files, list):
        raise ConfigError("measured.files: is not a list")
    return tuple(folder / str(each) for each in files)


def _deployed(document: dict[str, Any]) -> Deployed | None:
    if "deployed" not in document:
        return None
    table = document["deployed"]
    hints = {each.name: each.type for each in structs.fields(Deployed)}
    try:
        fields = with_units(table, hints, "deployed") if isinstance(table, dict) else table
        return msgspec.convert(fields, Deployed)
    except msgspec.ValidationError as error:
        raise ConfigError(f"deployed: {error}") from None


def _expected(table: object) -> PlatformName | None:
    if not isinstance(table, dict) or set(table) - {"choice"}:
        raise ConfigError("check: must be a table with the key choice")
    if "choice" not in table:
        return None
    found = next((name for name in PLATFORMS if name == table["choice"]), None)
    if found is None:
        known = ", ".join(PLATFORMS)
        raise ConfigError(f"check.choice: unknown {table['choice']!r}; known: {known}")
    return found

"""Measured values in place of assumed ones; each is named with its source."""

from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan.inputs.calibration import with_cpu
from seawall.plan.inputs.distributions import constant
from seawall.plan.inputs.measured.findings import Findings
from seawall.plan.inputs.measured.reading import read_measured
from seawall.plan.inputs.prices import DISCOUNTS, Prices
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.service import Service, split_duration
from seawall.plan.inputs.workload_file import clients_of

__all__ = ["with_measured"]

# What was given or recorded stays; what was assumed is replaced.
_STAYS = ("given", "the trace")


def with_measured(question: Question, paths: Iterable[Path]) -> Question:
    """The question with measurements and bills in place of what it assumes.

    Args:
        question: Values that were given stay.
        paths: Files; see `read_measured`.

    Raises:
        ConfigError: A file is invalid, or contradicts another, a discount or an option.
    """
    for path in paths:
        question = _applied(question, read_measured(path, question.prices), str(path))
    return question


def _applied(question: Question, found: Findings, name: str) -> Question:
    wanted = question.options.architecture
    if found.architecture not in ("", wanted) and "options.architecture" in question.given:
        raise ConfigError(f"{name}: measured on {found.architecture}; the architecture is {wanted}")
    workload = question.workload
    sources = dict(workload.sources)
    service = _service(workload.service, found, sources, name)
    clients = workload.clients
    if service.stages != workload.service.stages and _assumed(sources, "clients"):
        clients = clients_of(service, sources)
    fields = {}
    for field, value in found.each.items():
        key = f"each.{field}"
        if key not in question.given:
            _set_source(sources, key, found.source, name)
            fields[field] = value
    given = question.given | ({"prices"} if found.prices else set())
    return structs.replace(
        question,
        workload=structs.replace(workload, service=service, clients=clients, sources=sources),
        each=structs.replace(question.each, **fields),
        prices=_prices(question.prices, found, name),
        given=given,
    )


def _service(service: Service, found: Findings, sources: dict[str, str], name: str) -> Service:
    stages = service.stages
    if found.seconds is not None and _assumed(
        sources, "service.stages", "service.stages.seconds", "service.stages.model"
    ):
        stages = split_duration(constant(found.seconds, field=name), stages)
        _set_source(sources, "service.stages.seconds", found.source, name)
    if found.cpu_ms is not None and _assumed(sources, "service.stages"):
        stages = with_cpu(stages, found.cpu_ms)
        words = found.source + (f", on {found.architecture}" if found.architecture else "")
        _set_source(sources, "service.stages.cpu_ms", words, name)
    memory = service.memory_mb
    if found.memory_mb is not None and _assumed(sources, "service.memory_mb"):
        memory = found.memory_mb
        _set_source(sources, "service.memory_mb", found.source, name)
    return structs.replace(service, stages=stages, memory_mb=memory)


def _assumed(sources: dict[str, str], *fields: str) -> bool:
    return not any(sources.get(field, "").startswith(_STAYS) for field in fields)


def _set_source(sources: dict[str, str], field: str, source: str, name: str) -> None:
    """Name the source of a field. Raises ConfigError if another measurement is there."""
    before = sources.get(field, "")
    if before.startswith("measured by"):
        raise ConfigError(f"{name}: {field}: is also {before}; give one of them")
    sources[field] = f"measured by {source}"


def _prices(prices: Prices, found: Findings, name: str) -> Prices:
    if not found.prices:
        return prices
    items = dict(prices.items)
    for item, price in found.prices.items():
        for what in prices.discounts:
            if item.startswith(DISCOUNTS[what]):
                raise ConfigError(
                    f"{name}: {item}: an effective price, which discounts are in; the discount "
                    f"{what} would count twice"
                )
        if items[item].source.startswith("measured by"):
            raise ConfigError(f"{name}: {item}: is also {items[item].source}; give one of them")
        items[item] = structs.replace(
            items[item], price=price, source=f"measured by {found.source}",
            uncertain=found.approximate, tiers=(),
        )  # fmt: skip
    file = f"{prices.file}; {len(found.prices)} of them measured by {found.source}"
    return structs.replace(prices, items=items, file=file)

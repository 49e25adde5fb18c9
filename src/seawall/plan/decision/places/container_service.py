"""What services of containers have in common: ECS, Cloud Run and Container Apps."""

from msgspec import structs

from seawall.plan.decision.answer import Configuration, ServiceConfiguration
from seawall.plan.decision.places.pods import Sizes
from seawall.plan.decision.text import scheduled_words
from seawall.plan.inputs.platforms import Eks, KedaSettings, RequestScaling, ServiceTracking

__all__ = ["resting", "service_words"]


def resting(peak: Eks, sizes: Sizes) -> Eks:
    """The platform between spikes."""
    scaler = peak.scaler
    assert isinstance(scaler, ServiceTracking | RequestScaling | KedaSettings)
    return structs.replace(
        peak, pods=sizes.resting, scaler=structs.replace(scaler, minimum=sizes.resting)
    )


def service_words(configuration: Configuration, what: str) -> tuple[str, ...]:
    """A service in words. what: of its instances."""
    assert isinstance(configuration, ServiceConfiguration)
    scale = f"from {configuration.minimum:,} to {configuration.maximum:,}, target"
    size = f"{configuration.vcpus:g} vCPU and {configuration.memory_mb:,} MB"
    lines = [
        f"{configuration.instances:,} {what} of {size}, {configuration.architecture}",
        f"{configuration.in_flight:,} requests at once in each",
        f"{scale} {configuration.target:,.0f} {configuration.metric}",
    ]
    nodes = configuration.nodes
    if nodes is not None:
        spot = ", spot" if nodes.spot else ""
        lines.append(f"on {nodes.count:,} {nodes.instance}{spot} in {nodes.zones} zones")
    return (*lines, *scheduled_words(configuration.schedule, what))

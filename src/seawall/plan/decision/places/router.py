"""Routers in front of several identical functions: each function has its own start rate."""

from msgspec import Struct

from seawall.plan.decision.answer import LambdaConfiguration
from seawall.plan.decision.bill import Bill, Used
from seawall.plan.decision.places.limits import missing_prices
from seawall.plan.inputs.question import Question

__all__ = ["ROUTERS", "Router", "add_router", "most_functions", "router_notes", "router_of"]


class Router(Struct, frozen=True, kw_only=True):
    """What chooses one of several functions for a session.

    Attributes:
        title: For readers.
        how: How it chooses.
        most: Functions at most. None: no limit of its own.
        prices: Of a million requests each: names of items.
        source: Of these.
    """

    title: str
    how: str
    most: int | None
    prices: tuple[tuple[str, str], ...]
    source: str


ROUTERS = {
    # A function of CloudFront may choose the origin of each request; a distribution has up to 100.
    "cloudfront": Router(
        title="behind CloudFront",
        how="a CloudFront Function chooses the origin by the hash of the session",
        most=100,
        prices=(
            ("cloudfront.requests", "CloudFront, requests"),
            ("cloudfront.functions", "CloudFront, choice of the function"),
        ),
        source="https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/"
        "helper-functions-origin-modification.html",
    ),
    # A rule forwards to up to five target groups, by weight.
    "alb": Router(
        title="behind one load balancer",
        how="a rule of its listener divides requests by weight among target groups",
        most=5,
        prices=(),
        source="https://docs.aws.amazon.com/elasticloadbalancing/latest/application/"
        "load-balancer-limits.html",
    ),
    "client": Router(
        title="chosen by the client",
        how="the client chooses an address by the hash of its session",
        most=None,
        prices=(),
        source="nothing of AWS is involved",
    ),
}


def router_of(question: Question) -> str:
    """The name of the router: the listener of an ALB, else that of the options."""
    options = question.options
    return "alb" if options.entry == "alb" else options.router


def most_functions(question: Question) -> int:
    """Identical functions at most, by the options and the router; 1 if it has no price."""
    router = ROUTERS[router_of(question)]
    if missing_prices(question, *(name for name, _ in router.prices)):
        return 1
    most = question.options.most_functions
    return most if router.most is None else min(most, router.most)


def add_router(lines: Bill, router: str, used: Used) -> None:
    """Add a router to a bill; what goes out through it is billed as without."""
    for name, title in ROUTERS[router].prices:
        lines.add(name, title, used.attempts / 1e6)


def router_notes(configuration: LambdaConfiguration) -> list[str]:
    """Notes about several functions."""
    count, router = configuration.functions, ROUTERS[configuration.router]
    starts = "Each starts 1,000 environments at once; the account's concurrency is shared by all."
    stored = "Sessions are in the store, so any of them serves any session."
    return [
        f"{count} identical functions: {router.how}; retries go to the same one. {starts}",
        f"{count} functions are {count} deployments, alarms and log groups to operate. {stored}",
    ]

"""Which region to use."""

from collections.abc import Mapping

from seawall.aws.endpoints import check_region

__all__ = ["find_region"]


def find_region(environment: Mapping[str, str], region: str = "") -> str:
    """The region: the argument, AWS_REGION, AWS_DEFAULT_REGION, the profile; "" if none says.

    May read the small shared files: for start-up.

    Raises:
        ValueError: what was found is not the name of a region.
        CredentialsUnavailable: a shared file cannot be read.
    """
    found = (
        region
        or environment.get("AWS_REGION", "")
        or environment.get("AWS_DEFAULT_REGION", "")
        or _of_profile(environment)
    )
    return check_region(found) if found else ""


def _of_profile(environment: Mapping[str, str]) -> str:
    from seawall.aws.profile import Profiles, load_profile  # noqa: PLC0415 - not on Lambda

    found = load_profile(Profiles(environment)) or {}
    return found.get("region", "")

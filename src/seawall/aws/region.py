"""Which region to use."""

from collections.abc import Mapping

from seawall.aws.endpoints import check_region
from seawall.aws.profile import Profiles, load_profile

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
        or (load_profile(Profiles(environment)) or {}).get("region", "")
    )
    return check_region(found) if found else ""

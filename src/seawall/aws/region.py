"""AWS regions: which one to use, and the endpoints of its services."""

import re
from collections.abc import Mapping

__all__ = ["endpoint_url", "find_region"]

_region = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){1,4}")

# By the prefix of the region; botocore/data/partitions.json, 1.43.
_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}


def endpoint_url(service: str, region: str) -> str:
    """Return the public regional endpoint of a service, such as "dynamodb" or "sts".

    Raises:
        ValueError: That is not the name of a region.
    """
    _check_region(region)
    for prefix, suffix in _SUFFIXES.items():
        if region.startswith(prefix):
            return f"https://{service}.{region}.{suffix}"
    return f"https://{service}.{region}.amazonaws.com"


def _check_region(region: str) -> str:
    """Return the region; it becomes part of a host name, so its form is checked.

    Raises:
        ValueError: That is not the name of a region.
    """
    if not _region.fullmatch(region):
        raise ValueError(f"not the name of an AWS region: {region!r}")
    return region


def find_region(environment: Mapping[str, str], region: str = "") -> str:
    """Return the first of: the argument, AWS_REGION, AWS_DEFAULT_REGION, the profile's; else "".

    May read the shared files of AWS's tools; meant for start-up.

    Args:
        environment: Environment variables.
        region: As configured; empty for none.

    Raises:
        ValueError: What was found is not the name of a region.
        CredentialsUnavailable: A shared file cannot be read.
    """
    found = (
        region
        or environment.get("AWS_REGION", "")
        or environment.get("AWS_DEFAULT_REGION", "")
        or _of_profile(environment)
    )
    return _check_region(found) if found else ""


def _of_profile(environment: Mapping[str, str]) -> str:
    from seawall.aws.profile import Profiles, load_profile  # noqa: PLC0415 - not on Lambda

    found = load_profile(Profiles(environment)) or {}
    return found.get("region", "")

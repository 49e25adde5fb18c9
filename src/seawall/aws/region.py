"""Which region to use, and where its services are."""

import re
from collections.abc import Mapping

from seawall.aws.profile import Profiles, load_profile

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
    return _checked(found) if found else ""


def endpoint_url(service: str, region: str) -> str:
    """The public regional endpoint of a service, such as "dynamodb" or "sts".

    Raises:
        ValueError: that is not the name of a region.
    """
    _checked(region)
    for prefix, suffix in _SUFFIXES.items():
        if region.startswith(prefix):
            return f"https://{service}.{region}.{suffix}"
    return f"https://{service}.{region}.amazonaws.com"


def _checked(region: str) -> str:
    """A region becomes part of a host name, so nothing else may pass for one."""
    if not _region.fullmatch(region):
        raise ValueError(f"not the name of an AWS region: {region!r}")
    return region

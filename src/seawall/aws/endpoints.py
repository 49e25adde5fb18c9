"""Where a region's services are."""

import re

__all__ = ["check_region", "endpoint_url"]

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
    """The public regional endpoint of a service, such as "dynamodb" or "sts".

    Raises:
        ValueError: that is not the name of a region.
    """
    check_region(region)
    for prefix, suffix in _SUFFIXES.items():
        if region.startswith(prefix):
            return f"https://{service}.{region}.{suffix}"
    return f"https://{service}.{region}.amazonaws.com"


def check_region(region: str) -> str:
    """The region itself. It becomes part of a host name, so nothing else may pass for one.

    Raises:
        ValueError: that is not the name of a region.
    """
    if not _region.fullmatch(region):
        raise ValueError(f"not the name of an AWS region: {region!r}")
    return region

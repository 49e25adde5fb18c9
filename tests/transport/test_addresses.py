"""Which IP addresses are public."""

import pytest

from seawall.transport.http_client import is_public


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "224.0.0.1"),
        *("::", "::1", "fe80::1%eth0", "fd00::1", "fec0::1", "ff02::1"),
        "::ffff:10.0.0.1",
        "::127.0.0.1",  # IPv4-compatible
        "64:ff9b::a9fe:a9fe",  # what NAT64 leads to 169.254.169.254
        "64:ff9b:1::a00:1",  # NAT64 of one's own network
        "2002:a00:1::1",  # 6to4 of 10.0.0.1
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)

"""Usage types of AWS: what an item of our prices is called in price lists and on bills.

A usage type is a name, such as `NatGateway-Hours`, with the region's prefix in most regions:
`EUC1-NatGateway-Hours`.
"""

import re
from collections.abc import Container, Mapping

from msgspec import Struct

__all__ = ["ITEMS", "Item", "item_of"]


class Item(Struct, frozen=True):
    """How an item is found.

    Attributes:
        usage: Its usage type without the region's prefix.
        unit: Of the item.
        many: Units of the price list in one of the item's.
        attributes: That its product has, too.
    """

    usage: str
    unit: str
    many: int = 1
    attributes: Mapping[str, str] = {}


_MILLION = 1_000_000
_BALANCER = {"productfamily": "Load Balancer-Application"}
ITEMS = {
    "lambda.gb_seconds.arm64": Item("Lambda-GB-Second-ARM", "GB-s"),
    "lambda.gb_seconds.x86_64": Item("Lambda-GB-Second", "GB-s"),
    "lambda.requests": Item("Request", "million", _MILLION),
    "lambda.provisioned_gb_seconds.arm64": Item("Lambda-Provisioned-Concurrency-ARM", "GB-s"),
    "lambda.provisioned_gb_seconds.x86_64": Item("Lambda-Provisioned-Concurrency", "GB-s"),
    "lambda.provisioned_duration.arm64": Item("Lambda-Provisioned-GB-Second-ARM", "GB-s"),
    "lambda.provisioned_duration.x86_64": Item("Lambda-Provisioned-GB-Second", "GB-s"),
    "lambda.snapstart_cache": Item("Lambda-SnapStart-Cached-GB-S", "GB-s"),
    "lambda.snapstart_restore": Item("Lambda-SnapStart-Restored-GB", "GB"),
    "ec2_surplus.vcpu_hours": Item("CPUCredits:t4g", "vCPU-h"),
    "eks.control_plane": Item("AmazonEKS-Hours:perCluster", "hour"),
    "eks.extended_support": Item("AmazonEKS-Hours:extendedSupport", "hour"),
    "fargate.vcpu_hours.x86_64": Item("Fargate-vCPU-Hours:perCPU", "vCPU-h"),
    "fargate.gb_hours.x86_64": Item("Fargate-GB-Hours", "GB-h"),
    "fargate.vcpu_hours.arm64": Item("Fargate-ARM-vCPU-Hours:perCPU", "vCPU-h"),
    "fargate.gb_hours.arm64": Item("Fargate-ARM-GB-Hours", "GB-h"),
    "ipv4.hours": Item("PublicIPv4:InUseAddress", "hour"),
    "alb.hours": Item("LoadBalancerUsage", "hour", 1, _BALANCER),
    "alb.lcu_hours": Item("LCUUsage", "LCU-h", 1, _BALANCER),
    "api_gateway.http": Item("ApiGatewayHttpRequest", "million", _MILLION),
    "api_gateway.rest": Item("ApiGatewayRequest", "million", _MILLION),
    "nat.hours": Item("NatGateway-Hours", "hour"),
    "nat.gb": Item("NatGateway-Bytes", "GB"),
    "vpc_endpoint.hours": Item("VpcEndpoint-Hours", "hour"),
    "vpc_endpoint.gb": Item("VpcEndpoint-Bytes", "GB"),
    "ebs.gp3_gb_months": Item("EBS:VolumeUsage.gp3", "GB-month"),
    "logs.gb": Item("DataProcessing-Bytes", "GB"),
    "dynamodb.write_units": Item("WriteRequestUnits", "million", _MILLION),
    "dynamodb.read_units": Item("ReadRequestUnits", "million", _MILLION),
    "egress.gb": Item("DataTransfer-Out-Bytes", "GB"),
}
# Of a region: EU (Ireland), USE1, APN2, CAN1, ...; us-east-1 often has none. IA and TS are others.
_PREFIX = re.compile(r"^(?:EU|(?:US|UG|EU|AP|CA|CN|SA|ME|AF|IL|MX)[A-Z]\d{1,2})-")
_BY_USAGE = {item.usage: name for name, item in ITEMS.items()}


def item_of(usage: str, machines: Container[str]) -> str | None:
    """The item of a usage type. None: it is none of them.

    Args:
        usage: The usage type.
        machines: Types of EC2 machines that count.
    """
    bare = _PREFIX.sub("", usage)
    if bare.startswith("BoxUsage:") and bare.removeprefix("BoxUsage:") in machines:
        return f"ec2.{bare.removeprefix('BoxUsage:')}"
    return _BY_USAGE.get(bare)

"""A handler that only imports the peer."""

import agents  # noqa: F401


def handler(event, context):
    return {"statusCode": 200, "body": "x"}

"""A handler that only imports the peer."""

import litellm  # noqa: F401


def handler(event, context):
    return {"statusCode": 200, "body": "x"}

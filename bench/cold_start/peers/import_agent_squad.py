"""A handler that only imports the peer."""

import agent_squad.orchestrator  # noqa: F401


def handler(event, context):
    return {"statusCode": 200, "body": "x"}

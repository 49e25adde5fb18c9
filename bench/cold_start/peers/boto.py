"""One item read from DynamoDB by boto3."""

import os

import boto3

client = boto3.client("dynamodb", endpoint_url=os.environ["DYNAMODB"])


def handler(event, context):
    client.get_item(TableName="seawall-sessions", Key={"pk": {"S": "x"}, "sk": {"S": "x"}})
    return {"statusCode": 200, "body": "x"}

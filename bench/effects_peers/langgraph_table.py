"""The table of LangGraph's DynamoDB checkpointer, as its documentation creates it."""

import os

import boto3

boto3.client("dynamodb", endpoint_url=os.environ["DYNAMODB"]).create_table(
    TableName="checkpoints",
    KeySchema=[
        {"AttributeName": "PK", "KeyType": "HASH"},
        {"AttributeName": "SK", "KeyType": "RANGE"},
    ],
    AttributeDefinitions=[
        {"AttributeName": "PK", "AttributeType": "S"},
        {"AttributeName": "SK", "AttributeType": "S"},
    ],
    BillingMode="PAY_PER_REQUEST",
)

"""An event of every entry that AWS documents, in its form, with contents of ours.

Forms: docs.aws.amazon.com: lambda/latest/dg (services-*), apigateway/latest/developerguide,
elasticloadbalancing/latest/application, vpc-lattice/latest/ug; `REQUESTS` are HTTP, each of
`GET /readyz`; `OTHERS` are not.
"""

import json
from typing import Any

__all__ = ["OTHERS", "REQUESTS", "TURN", "sqs"]

_PATH = "/readyz"
_HEADERS = {
    "accept": "*/*",
    "host": "assistant.example",
    "user-agent": "curl/8.5",
    "x-amzn-trace-id": "Root=1-66f0c0de-0123456789abcdef01234567",
    "x-forwarded-for": "198.51.100.7",
    "x-forwarded-port": "443",
    "x-forwarded-proto": "https",
}
_MANY = {name: [value] for name, value in _HEADERS.items()}
_TIME = {"time": "28/Nov/2026:20:00:00 +0000", "timeEpoch": 1_795_896_000_000}
_REST_IDENTITY = {
    "cognitoIdentityPoolId": None,
    "accountId": None,
    "caller": None,
    "sourceIp": "198.51.100.7",
    "principalOrgId": None,
    "userAgent": "curl/8.5",
}


def _v2(domain: str, stage: str = "$default", **more: Any) -> dict[str, Any]:
    path = _PATH if stage == "$default" else f"/{stage}{_PATH}"
    context = {
        "accountId": "anonymous" if "lambda-url" in domain else "123456789012",
        "apiId": "abc123",
        "domainName": domain,
        "domainPrefix": domain.partition(".")[0],
        "http": {
            "method": "GET",
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": "198.51.100.7",
            "userAgent": "curl/8.5",
        },
        "requestId": "JKJaXmPLvHcESHA=",
        "routeKey": "$default",
        "stage": stage,
        **_TIME,
        **more,
    }
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "a=1&a=2&b=%20",
        "cookies": ["one=1", "two=2"],
        "headers": _HEADERS,
        "queryStringParameters": {"a": "1,2", "b": " "},
        "requestContext": context,
        "isBase64Encoded": False,
    }


def _v1(resource: str, **context: Any) -> dict[str, Any]:
    return {
        "resource": resource,
        "path": _PATH,
        "httpMethod": "GET",
        "headers": _HEADERS,
        "multiValueHeaders": _MANY,
        "queryStringParameters": {"a": "2"},
        "multiValueQueryStringParameters": {"a": ["1", "2"]},
        "pathParameters": {"proxy": "readyz"},
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "resourceId": "us4z18",
            "resourcePath": resource,
            "operationName": None,
            "stage": "prod",
            "requestId": "41b45ea3-70b5-11e6-b7bd-69b5aaebc7d9",
            "extendedRequestId": "JKJaXmPLvHcESHA=",
            "identity": _REST_IDENTITY,
            "httpMethod": "GET",
            "apiId": "abc123",
            "path": f"/prod{_PATH}",
            "protocol": "HTTP/1.1",
            **context,
        },
        "body": None,
        "isBase64Encoded": False,
    }


_ALB = {
    "requestContext": {
        "elb": {
            "targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:123456789012:"
            "targetgroup/turns/6d0ecf831eec9f09"
        }
    },
    "httpMethod": "GET",
    "path": _PATH,
    "body": "",
    "isBase64Encoded": False,
}
_URL = "abc123.lambda-url.eu-west-1.on.aws"
_API = "abc123.execute-api.eu-west-1.amazonaws.com"
_CLAIMS = {"sub": "me", "tenant": "shop", "scope": "turns", "exp": "1795899600"}

REQUESTS: dict[str, dict[str, Any]] = {
    "function-url": _v2(_URL),
    "function-url-iam": _v2(
        _URL,
        authentication=None,
        authorizer={
            "iam": {
                "accessKey": "AKIAIOSFODNN7EXAMPLE",
                "accountId": "123456789012",
                "callerId": "AIDAEXAMPLE",
                "cognitoIdentity": None,
                "principalOrgId": "aws:PrincipalOrgID",
                "userArn": "arn:aws:iam::123456789012:user/one",
                "userId": "AIDAEXAMPLE",
            }
        },
    ),
    "http-api": _v2(_API),
    "http-api-stage": _v2(_API, "prod"),
    "http-api-jwt": _v2(_API, authorizer={"jwt": {"claims": _CLAIMS, "scopes": ["turns"]}}),
    "http-api-lambda-authorizer": _v2(_API, authorizer={"lambda": _CLAIMS}),
    "http-api-format-1": {**_v1("$default"), "version": "1.0"},
    "rest-api": _v1("/{proxy+}"),
    "rest-api-cognito": _v1("/{proxy+}", authorizer={"claims": _CLAIMS}),
    "rest-api-lambda-authorizer": _v1(
        "/{proxy+}", authorizer={"principalId": "me", "integrationLatency": 12, **_CLAIMS}
    ),
    "rest-api-test-invoke": _v1("/{proxy+}", stage="test-invoke-stage"),
    "load-balancer": {**_ALB, "headers": _HEADERS, "queryStringParameters": {"a": "1%202"}},
    "load-balancer-multi": {
        **_ALB,
        "multiValueHeaders": _MANY,
        "multiValueQueryStringParameters": {"a": ["1", "2"]},
    },
    "load-balancer-health": {
        **_ALB,
        "headers": {"user-agent": "ELB-HealthChecker/2.0"},
        "queryStringParameters": {},
    },
    "lattice": {
        "version": "2.0",
        "path": _PATH,
        "method": "GET",
        "headers": _MANY,
        "queryStringParameters": {"a": ["1", "2"]},
        "body": "",
        "isBase64Encoded": False,
        "requestContext": {
            "serviceNetworkArn": "arn:aws:vpc-lattice:eu-west-1:123456789012:servicenetwork/sn-1",
            "serviceArn": "arn:aws:vpc-lattice:eu-west-1:123456789012:service/svc-1",
            "targetGroupArn": "arn:aws:vpc-lattice:eu-west-1:123456789012:targetgroup/tg-1",
            "identity": {
                "sourceVpcArn": "arn:aws:ec2:eu-west-1:123456789012:vpc/vpc-1",
                "type": "AWS_IAM",
                "principal": "arn:aws:sts::123456789012:assumed-role/one/two",
                "sessionName": "two",
            },
            "region": "eu-west-1",
            "timeEpoch": "1795896000000000",
        },
    },
    "lattice-v1": {
        "raw_path": f"{_PATH}?a=1",
        "method": "GET",
        "headers": _HEADERS,
        "query_string_parameters": {"a": "1"},
        "body": "",
        "is_base64_encoded": False,
    },
}

TURN: dict[str, Any] = {
    "text": "where is my order",
    "principal": {"tenant": "shop", "subject": "me"},
}


def sqs(*bodies: object, group: str = "") -> dict[str, Any]:
    """A batch whose messages have these bodies."""
    attributes = {
        "ApproximateReceiveCount": "1",
        "SentTimestamp": "1795896000000",
        "SenderId": "AIDAEXAMPLE",
        "ApproximateFirstReceiveTimestamp": "1795896000001",
        **({"MessageGroupId": group, "SequenceNumber": "1"} if group else {}),
    }
    return {
        "Records": [
            {
                "messageId": f"059f36b4-87a3-44ab-83d2-66197597{number:04}",
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": attributes,
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:turns"
                + (".fifo" if group else ""),
                "awsRegion": "eu-west-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


def _records(source: str, key: str = "eventSource", **more: Any) -> dict[str, Any]:
    return {"Records": [{key: source, "awsRegion": "eu-west-1", **more}]}


def _bus(kind: str, source: str, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": kind,
        "source": source,
        "account": "123456789012",
        "time": "2026-11-28T20:00:00Z",
        "region": "eu-west-1",
        "resources": ["arn:aws:events:eu-west-1:123456789012:rule/every-minute"],
        "detail": detail,
    }


OTHERS: dict[str, Any] = {
    "scheduled": _bus("Scheduled Event", "aws.events", {}),
    "event-bus": _bus("order placed", "shop.orders", {"order": 1}),
    "sns": _records("aws:sns", "EventSource", Sns={"Message": "hello", "Subject": None}),
    "s3": _records("aws:s3", s3={"bucket": {"name": "b"}, "object": {"key": "k", "size": 1}}),
    "dynamodb": _records("aws:dynamodb", eventName="INSERT", dynamodb={"Keys": {"a": {"S": "b"}}}),
    "kinesis": _records("aws:kinesis", kinesis={"data": "aGVsbG8=", "partitionKey": "1"}),
    "codecommit": _records("aws:codecommit", codecommit={"references": []}),
    "ses": _records("aws:ses", ses={"mail": {}, "receipt": {}}),
    "edge": {"Records": [{"cf": {"request": {"uri": "/", "method": "GET", "headers": {}}}}]},
    "websocket-connect": {
        "headers": _HEADERS,
        "multiValueHeaders": _MANY,
        "requestContext": {"routeKey": "$connect", "eventType": "CONNECT", "connectionId": "a="},
        "isBase64Encoded": False,
    },
    "websocket-message": {
        "requestContext": {"routeKey": "$default", "eventType": "MESSAGE", "connectionId": "a="},
        "body": '{"text": "hello"}',
        "isBase64Encoded": False,
    },
    "logs": {"awslogs": {"data": "H4sIAAAAAAAAAA=="}},
    "cognito": {
        "version": "1",
        "triggerSource": "PreSignUp_SignUp",
        "userPoolId": "eu-west-1_1",
        "request": {"userAttributes": {}},
        "response": {},
    },
    "config": {"invokingEvent": "{}", "ruleParameters": "{}", "resultToken": "t"},
    "lex": {"messageVersion": "1.0", "invocationSource": "DialogCodeHook", "currentIntent": {}},
    "msk": {"eventSource": "aws:kafka", "records": {"topic-0": [{"value": "aGVsbG8="}]}},
    "step-functions": {"Comment": "any input", "value": 1},
    "console-test": {"key1": "value1", "key2": "value2", "key3": "value3"},
}

"""Turns without HTTP: by direct invocation, or as a batch from SQS.

Both become requests of the turns API, with its checks and responses. They name their principal, so
their senders must be trusted; both are off by default.
SQS: docs.aws.amazon.com/lambda/latest/dg, services-sqs-errorhandling.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from seawall.errors import Unauthenticated
from seawall.hosts.aws_lambda.http_events import AsgiApp, Message
from seawall.identity import Trusted
from seawall.identity.settings import check_name, claimed_roles
from seawall.turn import Principal

__all__ = ["TurnRefused", "answer_batch", "answer_direct", "is_batch", "principal_of"]

_log = logging.getLogger("seawall.lambda")
_AT_ONCE = 64
_encode = msgspec.json.Encoder().encode


class TurnRefused(Exception):
    """The turn failed; `code` and text are those of its problem details."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class _DirectTurn(Struct, frozen=True, forbid_unknown_fields=True):
    """A turn and its principal."""

    text: str
    principal: Principal
    session: str | None = None
    agent: str | None = None
    idempotency_key: str | None = None


def is_batch(event: object) -> bool:
    """Whether the event is a batch from SQS."""
    records = event.get("Records") if isinstance(event, dict) else None
    return (
        isinstance(records, list)
        and bool(records)
        and all(isinstance(each, dict) for each in records)
        and records[0].get("eventSource") == "aws:sqs"
    )


async def answer_direct(
    app: AsgiApp, event: object, *, deadline: float, request: str = ""
) -> bytes:
    """Answer one turn, in the format of the turns API.

    Args:
        app: The HTTP application.
        event: The turn.
        deadline: Seconds on the event loop's clock.
        request: The invocation's id, for log lines.

    Raises:
        TurnRefused: The turn failed.
    """
    try:
        turn = msgspec.convert(event, _DirectTurn)
    except msgspec.ValidationError as error:
        raise TurnRefused("invalid-field", f"The event is not a turn: {error}.") from error
    return await _ask(app, turn, deadline, request)


async def answer_batch(
    app: AsgiApp, records: Sequence[Mapping[str, Any]], *, deadline: float
) -> bytes:
    """Answer a batch of turns and report those that failed, so that SQS delivers only them again.

    The idempotency key defaults to the message's id, so that a message delivered twice is answered
    once. In a FIFO queue the turns of a group run one after another, and a failure fails the rest
    of its group.

    Args:
        app: The HTTP application.
        records: Messages of SQS.
        deadline: Seconds on the event loop's clock.

    Raises:
        TurnRefused: A message has no id by which its failure could be reported; none was begun.
    """
    if not all(isinstance(each.get("messageId"), str) for each in records):
        raise TurnRefused("invalid-field", "Records: a message has no messageId.")
    fifo = str(records[0].get("eventSourceARN", "")).endswith(".fifo")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        attributes = record.get("attributes")
        name = record["messageId"]
        if fifo and isinstance(attributes, dict):
            name = attributes.get("MessageGroupId", "")
        groups.setdefault(str(name), []).append(record)
    room = asyncio.Semaphore(_AT_ONCE)
    failed: list[str] = []

    async def run(group: Sequence[Mapping[str, Any]]) -> None:
        async with room:
            for index, record in enumerate(group):
                if not await _answer_record(app, record, deadline):
                    failed.extend(str(each["messageId"]) for each in group[index:])
                    return

    async with asyncio.TaskGroup() as tasks:
        for group in groups.values():
            tasks.create_task(run(group))
    return _encode({"batchItemFailures": [{"itemIdentifier": each} for each in failed]})


def principal_of(
    claims: Mapping[str, Any], tenant_claim: str, subject_claim: str, roles_claim: str = ""
) -> Principal:
    """The principal in the claims of an API's authorizer.

    Args:
        claims: Of the authorizer.
        tenant_claim: The claim that names the tenant.
        subject_claim: The claim that names the subject.
        roles_claim: The claim that has its roles; API Gateway writes a list as `[a b]`.

    Raises:
        Unauthenticated: A claim is missing or invalid.
    """
    names = []
    for claim in (tenant_claim, subject_claim):
        try:
            names.append(check_name(claims.get(claim)))
        except ValueError as error:
            raise Unauthenticated(f"The authorizer's claim {claim!r} {error}.") from error
    roles = claims.get(roles_claim)
    if isinstance(roles, str):
        roles = roles.removeprefix("[").removesuffix("]")
    return Principal(names[0], names[1], claimed_roles(roles))


async def _answer_record(app: AsgiApp, record: Mapping[str, Any], deadline: float) -> bool:
    identifier = str(record["messageId"])
    try:
        body = record.get("body")
        if not isinstance(body, str):
            raise TurnRefused("invalid-field", "The message has no body.")
        turn = msgspec.json.decode(body, type=_DirectTurn)
        if turn.idempotency_key is None:
            turn = msgspec.structs.replace(turn, idempotency_key=identifier)
        await _ask(app, turn, deadline, identifier)
    except (ValueError, RecursionError, TurnRefused) as error:
        _log.warning("the message %s was not answered: %s", identifier, error)
        return False
    except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - it stays with this message
        _log.exception("the message %s failed", identifier)
        return False
    return True


async def _ask(app: AsgiApp, turn: _DirectTurn, deadline: float, request: str) -> bytes:
    """The turns API's answer to a turn of a principal that is trusted."""
    try:
        check_name(turn.principal.tenant)
        check_name(turn.principal.subject)
    except ValueError as error:
        raise TurnRefused("invalid-field", f"principal: {error}") from error
    body = {"text": turn.text, "stream": False}
    body |= {"session": turn.session} if turn.session is not None else {}
    body |= {"agent": turn.agent} if turn.agent is not None else {}
    headers = [(b"content-type", b"application/json")]
    if turn.idempotency_key is not None:
        try:
            headers.append((b"idempotency-key", turn.idempotency_key.encode("latin-1")))
        except UnicodeEncodeError as error:
            raise TurnRefused("invalid-field", "idempotency_key: must be ASCII") from error
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/v1/turns",
        "raw_path": b"/v1/turns",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": None,
        "server": None,
        "seawall.credential": Trusted(turn.principal),
        "seawall.deadline": deadline,
        "seawall.request_id": request,
    }
    sent: list[Message] = []
    asked = [{"type": "http.request", "body": _encode(body), "more_body": False}]
    never = asyncio.Event()

    async def receive() -> Message:
        if asked:
            return asked.pop()
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    answer = b"".join(each.get("body", b"") for each in sent[1:])
    if not sent:
        raise TurnRefused("internal-error", "The turn was not answered.")
    if sent[0]["status"] >= 400:
        problem = msgspec.json.decode(answer)
        raise TurnRefused(str(problem["code"]), str(problem["detail"]))
    return answer

"""Messages with attachments are stored beside those of servers that know none."""

import msgspec
from msgspec import Struct

from seawall.requests import fingerprint
from seawall.turn import (
    AnswerOptions,
    AssistantMessage,
    Attachment,
    TurnRequest,
    UserMessage,
)

PHOTO = Attachment("file-ses_1." + "a" * 32, "image/png", "a.png", 10, 5)


class OlderMessage(Struct, frozen=True, tag="user", tag_field="role"):
    """A user's message as the version before has it."""

    text: str


def test_plain_messages_are_written_as_before() -> None:
    assert msgspec.json.encode(UserMessage("a")) == msgspec.json.encode(OlderMessage("a"))


def test_both_versions_read_the_messages_of_the_other() -> None:
    older = msgspec.json.encode(OlderMessage("a"))
    assert msgspec.json.decode(older, type=UserMessage) == UserMessage("a")
    newer = msgspec.json.encode(UserMessage("a", (PHOTO,)))
    assert msgspec.json.decode(newer, type=OlderMessage) == OlderMessage("a")
    assert msgspec.json.decode(newer, type=UserMessage) == UserMessage("a", (PHOTO,))


def request(session: str, *attachments: Attachment, **more: object) -> TurnRequest:
    fields = {"id": "trn_s.1", "text": "héllo", "session": session, "opens": True} | more
    return TurnRequest(attachments=attachments, **fields)  # type: ignore[arg-type] # by name


def test_the_fingerprint_of_a_plain_request_is_that_of_the_version_before() -> None:
    """A retry may reach a server of the other version."""
    plain = request(
        "s",
        opens=False,
        agent="one",
        history=(UserMessage("a"), AssistantMessage("b")),
        options=AnswerOptions(max_tokens=5),
    )
    assert fingerprint(plain) == "2cd8d7795b47a0a8b0e4a040f4ac6d4799750fa6126a9da8a874247edca9313c"


def test_a_retry_has_the_same_fingerprint_in_another_new_session() -> None:
    def of(session: str, name: str) -> Attachment:
        return msgspec.structs.replace(PHOTO, id=f"file-{session}.{name * 32}")

    first = request("ses_1", of("ses_1", "a"))
    assert fingerprint(first) == fingerprint(request("ses_2", of("ses_2", "a")))
    assert fingerprint(first) != fingerprint(request("ses_2", of("ses_2", "b")))
    assert fingerprint(first) != fingerprint(request("ses_2"))
    history = (UserMessage("x", (of("ses_1", "a"),)),)
    again = (UserMessage("x", (of("ses_2", "a"),)),)
    assert fingerprint(request("ses_1", history=history)) == fingerprint(
        request("ses_2", history=again)
    )
    assert fingerprint(request("ses_1", history=history)) != fingerprint(
        request("ses_1", history=(UserMessage("x"),))
    )

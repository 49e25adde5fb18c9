"""Which attachments of a conversation a model is shown: the newest, within bounds.

Like the window, this moves in blocks. Attachments are shown until one more would exceed a bound;
then the oldest are only named from there on, until half of the bound is left. Where that happens
depends on nothing but the messages before, so what is sent for them stays the same from turn to
turn, and prompt caches of providers keep matching.
"""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from seawall.models.attachments import Contents, description, with_note
from seawall.turn import Attachment, Message, Principal, UserMessage

__all__ = ["ShownBounds", "TurnAttachments", "attached", "shown_messages"]

_NOT_SHOWN = "[The user had sent {}. It is not shown any more.]"
_IMAGE = "image/"


class ShownBounds(Struct, frozen=True):
    """What one request may have at most.

    Attributes:
        images: Images.
        documents: Other files.
        bytes: Bytes of all of them.
        tokens: About how many tokens a model reads for all of them.
    """

    images: int
    documents: int
    bytes: int
    tokens: int

    def half(self) -> "ShownBounds":
        """What is left when they were exceeded."""
        return ShownBounds(self.images // 2, self.documents // 2, self.bytes // 2, self.tokens // 2)


class TurnAttachments(Struct, frozen=True):
    """Where turns find the bytes of attachments, and what models are shown of them.

    Attributes:
        bounds: Of one request.
        contents_of: Makes the source of an owner's files.
    """

    bounds: ShownBounds
    contents_of: Callable[[Principal], Contents]


def attached(
    messages: Sequence[Message], attachments: TurnAttachments | None, owner: Principal
) -> tuple[tuple[Message, ...], Contents | None]:
    """The messages of a turn as its models are shown them, and where their files are found.

    Args:
        messages: Oldest first, with all their attachments.
        attachments: Of the pipeline; None where no store for files is configured (any more).
        owner: Of the session.
    """
    if attachments is None:
        return shown_messages(messages, ShownBounds(0, 0, 0, 0), all_of_newest=False), None
    return shown_messages(messages, attachments.bounds), attachments.contents_of(owner)


def shown_messages(
    messages: Sequence[Message], bounds: ShownBounds, *, all_of_newest: bool = True
) -> tuple[Message, ...]:
    """Messages with the attachments that are shown; the text names the others.

    Args:
        messages: Oldest first.
        bounds: Of one request.
        all_of_newest: Whether all files of the message that is added are shown in any case.
    """
    shown: list[tuple[int, Attachment]] = []
    for index, message in enumerate(messages):
        if type(message) is not UserMessage or not message.attachments:
            continue
        shown += [(index, each) for each in message.attachments]
        if not _fits(shown, bounds):
            half = bounds.half()
            while not _fits(shown, half) and not (all_of_newest and shown[0][0] == index):
                del shown[0]
    kept = {(index, each.id) for index, each in shown}
    return tuple(
        _with_kept(each, [file for file in each.attachments if (index, file.id) in kept])
        if type(each) is UserMessage and each.attachments
        else each
        for index, each in enumerate(messages)
    )


def _fits(shown: Sequence[tuple[int, Attachment]], bounds: ShownBounds) -> bool:
    images = sum(each.media_type.startswith(_IMAGE) for _, each in shown)
    return (
        images <= bounds.images
        and len(shown) - images <= bounds.documents
        and sum(each.bytes for _, each in shown) <= bounds.bytes
        and sum(each.tokens for _, each in shown) <= bounds.tokens
    )


def _with_kept(message: UserMessage, kept: Sequence[Attachment]) -> UserMessage:
    if len(kept) == len(message.attachments):
        return message
    gone = (each for each in message.attachments if each not in kept)
    notes = [_NOT_SHOWN.format(description(each)) for each in gone]
    return msgspec.structs.replace(
        message, text=with_note(message.text, notes), attachments=tuple(kept)
    )

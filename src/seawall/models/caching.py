"""The key by which OpenAI brings requests together that share the beginning of their prompt.

https://platform.openai.com/docs/guides/prompt-caching
"""

import hashlib
from collections.abc import Sequence

import msgspec

from seawall.turn import Message

__all__ = ["cache_key"]


def cache_key(head: bytes, messages: Sequence[Message]) -> str:
    """The same for the same head and the same first message; says nothing of what is in them.

    head: what all turns of an agent have in common.
    """
    digest = hashlib.sha256(head)
    if messages:
        digest.update(msgspec.json.encode(messages[0]))
    return digest.hexdigest()[:32]

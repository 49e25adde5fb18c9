"""Training in a process of its own, so that a server keeps neither numpy nor what training used."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

__all__ = ["train_apart"]

_log = logging.getLogger("seawall.intents")


class _Examples(Struct, frozen=True):
    """What the process is asked: examples, the intent of each, the file that keeps the result."""

    texts: Sequence[str]
    labels: Sequence[str]
    cache: str = ""


class _Answer(Struct, frozen=True):
    """What it answers: a file of a trained classifier, and the warnings of training."""

    file: bytes
    warnings: list[str]


def train_apart(texts: Sequence[str], labels: Sequence[str], *, cache: Path | None) -> bytes | None:
    """Load or train a classifier as `training.load_or_train` does, in a process of its own.

    Args:
        texts: The examples.
        labels: The intent of each.
        cache: The file that keeps the result; None for none.

    Returns:
        The content of the file; None if there can be no such process.
    """
    examples = _Examples(texts, labels, "" if cache is None else str(cache.absolute()))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, this module
            [sys.executable, "-P", "-m", __name__],
            input=msgspec.msgpack.encode(examples),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # a signal for the server's group is not for it
            check=True,
        )
        answer = msgspec.msgpack.decode(done.stdout, type=_Answer)
    except (OSError, ValueError, subprocess.CalledProcessError, msgspec.MsgspecError) as error:
        _log.warning("training in a process of its own has failed, training here: %s", error)
        return None
    for warning in answer.warnings:
        _log.warning("%s", warning)
    return answer.file


class _Warnings(logging.Handler):
    """Collects messages."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _main() -> None:
    # In this process only: it imports numpy.
    from seawall.intents.features import digest  # noqa: PLC0415
    from seawall.intents.saved import save  # noqa: PLC0415
    from seawall.intents.training import load_or_train  # noqa: PLC0415

    warnings = _Warnings()
    _log.addHandler(warnings)
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Examples)
    cache = Path(asked.cache) if asked.cache else None
    trained = load_or_train(asked.texts, asked.labels, cache=cache)
    file = io.BytesIO()
    save(file, digest(asked.texts, asked.labels), trained)
    sys.stdout.buffer.write(msgspec.msgpack.encode(_Answer(file.getvalue(), warnings.messages)))


if __name__ == "__main__":
    _main()

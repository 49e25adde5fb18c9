"""YAML 1.2 as JSON values, in bounded time and memory.

Scalars are read by the core schema (https://yaml.org/spec/1.2.2/#103-core-schema): `on`, `yes` and
dates are text. PyYAML's constructors follow YAML 1.1, so only its parser is used.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml
from msgspec import Struct

__all__ = ["MalformedYaml", "read_yaml"]

# libyaml if PyYAML was built with it: ten times as fast
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MERGE = "<<"  # a key of YAML 1.1, but widely used: https://yaml.org/type/merge.html
_LONGEST_NUMBER = 400  # characters; what is longer is text
_TAG = "tag:yaml.org,2002:"
_number = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_integer = re.compile(r"[-+]?[0-9]+")
_based = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_KINDS: dict[str, Callable[[object], bool]] = {
    "null": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, float),
}


class MalformedYaml(Exception):
    """The text is not YAML, or has what JSON has not; the message names the line."""


class _Open(Struct):
    """A mapping or sequence whose end has not been read.

    Attributes:
        value: Its items so far.
        anchor: Its name, if it has one.
        nodes: Nodes in it so far, with every alias expanded.
        key: Of a mapping: the key whose value comes next.
        merging: Of a mapping: whether the value of a merge key comes next.
        merged: Of a mapping: the values of its merge keys, which are put into it at its end.
    """

    value: Any
    anchor: str | None
    nodes: int = 1
    key: str | None = None
    merging: bool = False
    merged: list[Any] = []


def read_yaml(text: bytes, *, max_nodes: int) -> Any:  # noqa: ANN401 - JSON of any kind
    """Read the one document of a YAML stream. Keys are text.

    Args:
        text: The stream, in UTF-8 or UTF-16.
        max_nodes: Scalars, mappings and sequences at most, an alias counted as what it stands for.

    Raises:
        MalformedYaml: It is not YAML, has more nodes, contains itself, or has a tag that JSON has
            no value for.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise MalformedYaml(_fault(error)) from None
    try:
        return _Reader(max_nodes).read(loader)
    except yaml.YAMLError as error:
        raise MalformedYaml(_fault(error)) from None
    except UnicodeDecodeError as error:
        raise MalformedYaml(f"it is not valid UTF-8: {error.reason}") from None
    finally:
        loader.dispose()


def _fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
    return f"line {mark.line + 1}: {said}" if mark is not None else said


class _Reader:
    """Builds values from parser events without recursion."""

    def __init__(self, max_nodes: int) -> None:
        self._max_nodes = max_nodes
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._unfinished: set[str] = set()
        self._root: list[Any] = []

    def read(self, loader: Any) -> Any:  # noqa: ANN401 - a PyYAML loader
        documents = 0
        while loader.check_event():
            event = loader.get_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._scalar(event)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._begin(event, {} if kind is yaml.MappingStartEvent else [])
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._end(event)
            elif kind is yaml.AliasEvent:
                self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise _at(event, "a second document begins")
        if not self._root:
            raise MalformedYaml("it is empty")
        return self._root[0]

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if self._at_key():
            value: Any = event.value
            if event.tag is not None and event.tag not in ("!", f"{_TAG}str"):
                raise _at(event, f"a key cannot have the tag {event.tag}")
            if value == _MERGE and not event.style:
                self._open[-1].merging = True
            else:
                self._key(event, value)
            return
        value = _resolved(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._add(event, value, 1)

    def _at_key(self) -> bool:
        if not self._open:
            return False
        within = self._open[-1]
        return type(within.value) is dict and within.key is None and not within.merging

    def _key(self, event: yaml.Event, name: str) -> None:
        within = self._open[-1]
        if name in within.value:
            raise _at(event, f"the key {name[:80]!r} occurs twice")
        within.key = name

    def _begin(self, event: Any, value: Any) -> None:  # noqa: ANN401 - an event; {} or []
        if self._at_key():
            raise _at(event, "a key must be text")
        if event.tag is not None and event.tag not in ("!", f"{_TAG}map", f"{_TAG}seq"):
            raise _at(event, f"the tag {event.tag} has no meaning here")
        if event.anchor is not None:
            self._unfinished.add(event.anchor)
        self._open.append(_Open(value, event.anchor))

    def _end(self, event: yaml.Event) -> None:
        ended = self._open.pop()
        for each in ended.merged:
            if not isinstance(each, dict):
                raise _at(event, "<< must be followed by a mapping or a list of mappings")
            for name, value in each.items():  # the mapping's own keys have precedence
                ended.value.setdefault(name, value)
        if ended.anchor is not None:
            self._unfinished.discard(ended.anchor)
            self._anchors[ended.anchor] = (ended.value, ended.nodes)
        self._add(event, ended.value, ended.nodes)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor in self._unfinished:
            raise _at(event, f"*{event.anchor} contains itself")
        if event.anchor not in self._anchors:
            raise _at(event, f"*{event.anchor} is not defined")
        value, nodes = self._anchors[event.anchor]
        if self._at_key():
            if not isinstance(value, str):
                raise _at(event, "a key must be text")
            self._key(event, value)
            return
        self._add(event, value, nodes)

    def _add(self, event: yaml.Event, value: Any, nodes: int) -> None:  # noqa: ANN401 - JSON
        if not self._open:
            self._root.append(value)
            return
        within = self._open[-1]
        within.nodes += nodes
        if within.nodes > self._max_nodes:
            raise _at(event, f"it has more than {self._max_nodes} values, aliases expanded")
        if type(within.value) is list:
            within.value.append(value)
        elif within.merging:
            within.merged += value if isinstance(value, list) else [value]
            within.merging = False
        else:
            within.value[within.key] = value
            within.key = None


def _resolved(event: yaml.ScalarEvent) -> object:
    text = event.value
    if event.tag is None:
        return text if event.style else _plain(text)
    if event.tag == "!":
        return text
    kind = event.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    value = _plain(text)
    if kind == "float" and _KINDS["int"](value) and isinstance(value, int):
        return float(value)
    if kind not in _KINDS or not _KINDS[kind](value):
        raise _at(event, f"the tag {event.tag} has no value in JSON here")
    return value


def _plain(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if not (text[0].isascii() and text[0] in "-+.0123456789") or len(text) > _LONGEST_NUMBER:
        return text
    if _integer.fullmatch(text):
        return int(text)
    if _based.fullmatch(text):
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _number.fullmatch(text):
        value = float(text)
        return value if abs(value) != float("inf") else text
    return text


def _at(event: yaml.Event, fault: str) -> MalformedYaml:
    mark: Any = event.start_mark
    return MalformedYaml(f"line {mark.line + 1}: {fault}")

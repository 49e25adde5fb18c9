"""JSON Schemas from elsewhere, and values that are checked by them.

They are foreign data: no reference is followed to anywhere else, patterns take linear time, and
what is too large, too deep or would keep a validator busy is refused.
"""

import logging
from functools import partial
from typing import Any

import jsonschema_rs
import msgspec

from seawall.tools.effort import MOST_PATTERNS, PATTERN_BYTES, check_effort, count_patterns
from seawall.tools.port import truncate

__all__ = ["ForeignSchema"]

_MAX_SCHEMA_BYTES = 1 << 20
_SHOWN_FAULTS = 5
_LATEST = jsonschema_rs.Draft202012Validator
_DIALECTS = {
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
}

_log = logging.getLogger("seawall.tools")


class ForeignSchema:
    """A schema, compiled: of the dialect that it names, else 2020-12. Formats are not checked."""

    def __init__(self, schema: dict[str, Any] | bool) -> None:
        """Check and compile a schema.

        Args:
            schema: From elsewhere.

        Raises:
            ValueError: It cannot be used; the message says why.
        """
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        try:
            size = len(msgspec.json.encode(schema))
            if size > _MAX_SCHEMA_BYTES:
                raise ValueError(f"it exceeds {_MAX_SCHEMA_BYTES} bytes")
            self._effort = check_effort(schema)
            self._validator = _compiled(schema)
        except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(_line(error)) from error

    def is_valid(self, value: Any) -> bool:  # noqa: ANN401 - JSON of any kind
        """Whether a value fits."""
        valid: bool = self._validator.is_valid(value)
        return valid

    def fault(self, value: Any) -> str:  # noqa: ANN401 - JSON of any kind
        """What is wrong with a value, for a model; empty if nothing is.

        Args:
            value: Decoded JSON.
        """
        if self.is_valid(value):
            return ""
        # To find out what is wrong, the validator follows references without remembering where it
        # was: that can take exponential time.
        if not self._effort.allows_explanation(value):
            return "it does not fit the schema, which refers to itself"
        faults = []
        for error in self._validator.iter_errors(value):
            where = ".".join(map(str, error.instance_path))
            faults.append(f"{where}: {error.message}" if where else error.message)
            if len(faults) == _SHOWN_FAULTS:
                break
        return "; ".join(faults)


def _compiled(schema: dict[str, Any]) -> Any:  # noqa: ANN401 - its class is not public
    """The validator; patterns of a dialect that it does not know, or very many, are not checked.

    Raises:
        ValueError: The schema is not valid.
    """
    patterns, names = count_patterns(schema)
    if names > MOST_PATTERNS:
        raise ValueError(f"it has more than {MOST_PATTERNS} patterns of names")
    if patterns > MOST_PATTERNS:
        schema = _without_patterns(schema)
    compiled = partial(
        _DIALECTS.get(str(schema.get("$schema", "")).rstrip("#"), _LATEST),
        pattern_options=jsonschema_rs.RegexOptions(  # linear in time
            size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES
        ),
        validate_formats=False,
        offline=True,
    )
    try:
        return compiled(schema)
    except ValueError as error:
        simpler = _without_patterns(schema)
        if simpler == schema:
            raise
        _log.debug("patterns of a schema are not checked: %s", _line(error))
        return compiled(simpler)


def _without_patterns(value: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    if isinstance(value, dict):
        return {
            key: _without_patterns(each)
            for key, each in value.items()
            if not (key == "pattern" and isinstance(each, str))
        }
    return [_without_patterns(each) for each in value] if isinstance(value, list) else value


def _line(error: BaseException) -> str:
    return truncate(str(error).strip().partition("\n")[0], 300)

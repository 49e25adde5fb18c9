"""Questions of a server of tools, asked on the terminal."""

import sys
from typing import TYPE_CHECKING, Any

from seawall.printable import printable

if TYPE_CHECKING:
    from seawall.pipeline.decisions import Verdict
    from seawall.turn import Question

__all__ = ["ask_question"]

_DECLINE = "/decline"


def ask_question(question: "Question") -> "Verdict":
    """Ask the user; Ctrl-D cancels.

    Args:
        question: What is asked.
    """
    from seawall.pipeline.decisions import Verdict  # noqa: PLC0415 - only where something is asked

    number = question.number
    sys.stdout.write(f"{printable(question.source)} asks: {printable(question.message)}\n")
    try:
        if question.schema is None:
            sys.stdout.write(f"  {question.url}\n")
            said = input(f"Visit it, then press Enter ({_DECLINE} declines): ").strip()
            decision: Any = "decline" if said == _DECLINE else "accept"
            return Verdict(decision=decision, question=number)
        values = _values(question.schema)
    except EOFError:
        sys.stdout.write("\n")
        return Verdict(decision="cancel", question=number)
    if values is None:
        return Verdict(decision="decline", question=number)
    return Verdict(decision="accept", question=number, content=values)


def _values(schema: dict[str, Any]) -> dict[str, object] | None:
    """What the user enters in the fields of a form; None if the user declines."""
    sys.stdout.write(f"({_DECLINE} declines; an empty line leaves a field as it is)\n")
    values: dict[str, object] = {}
    for name, field in schema["properties"].items():
        required = name in schema["required"]
        while True:
            said = input(f"  {_label(name, field, required=required)}: ").strip()
            if said == _DECLINE:
                return None
            if said:
                try:
                    values[name] = _value(said, field)
                except ValueError:
                    sys.stdout.write(f"  That is no {field['type']}.\n")
                    continue
            elif "default" in field:
                values[name] = field["default"]
            elif required:
                continue
            break
    return values


def _label(name: str, field: dict[str, Any], *, required: bool) -> str:
    label = printable(field.get("title") or name) + "*" * required
    if field.get("description"):
        label += f" ({printable(field['description'])})"
    if choices := _choices(field):
        label += " {" + ", ".join(map(printable, choices)) + "}"
    if "default" in field:
        label += f" [{printable(str(field['default']))}]"
    return label


def _choices(field: dict[str, Any]) -> list[str]:
    field = field.get("items", field)
    if "enum" in field:
        return [str(each) for each in field["enum"]]
    listed = field.get("oneOf") or field.get("anyOf") or []
    return [str(each["const"]) for each in listed]


def _value(said: str, field: dict[str, Any]) -> object:
    """What was entered, as the type of a field.

    Raises:
        ValueError: It is not of this type.
    """
    match field["type"]:
        case "integer":
            return int(said)
        case "number":
            return float(said)
        case "boolean":
            if said.lower() not in ("y", "yes", "true", "n", "no", "false"):
                raise ValueError(said)
            return said.lower() in ("y", "yes", "true")
        case "array":
            return [each.strip() for each in said.split(",") if each.strip()]
        case _:
            return said

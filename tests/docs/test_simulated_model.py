"""The tables of docs/simulated-model.md, beside the rules that they are about."""

import msgspec

from seawall.lab.sim_model.faults import Refuse, Rule, Slow
from tests.docs.test_docs import rows

PAGE = "simulated-model.md"


def keys(kind: type[msgspec.Struct]) -> dict[str, object]:
    return {each.encode_name: each.default for each in msgspec.structs.fields(kind)}


def test_every_kind_is_there_with_its_keys() -> None:
    common = set(keys(Slow)) - {"factor", "first_factor"}
    told = {cells[0]: set(cells[2].split(", ")) - {"-"} for cells in rows(PAGE, "Kinds")}
    true = {
        str(kind.__struct_config__.tag): set(keys(kind)) - common
        for kind in (*Rule.__args__, Refuse)
    }
    assert told == true


def test_every_common_key_is_there_with_its_default() -> None:
    told = {cells[0]: cells[1] for cells in rows(PAGE, "Which requests, and when")}
    shown = {"None": "none", "": '""'}
    true = {
        name: f"{value:g}" if isinstance(value, float | int) else shown[str(value)]
        for name, value in keys(Slow).items()
        if name not in ("factor", "first_factor")
    }
    assert told == true

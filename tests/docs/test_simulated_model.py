"""The tables of docs/simulated-model.md against the rules that they describe."""

import msgspec

from seawall.lab.sim_model.faults import Refuse, Rule, Slow
from tests.docs.test_docs import rows

PAGE = "simulated-model.md"


def keys(kind: type[msgspec.Struct]) -> dict[str, object]:
    return {each.encode_name: each.default for each in msgspec.structs.fields(kind)}


def test_every_kind_is_documented_with_its_keys() -> None:
    common = set(keys(Slow)) - {"factor", "first_factor"}
    documented = {
        cells[0]: set(cells[2].split(", ")) - {"-"} for cells in rows(PAGE, "Kinds of faults")
    }
    true = {
        str(kind.__struct_config__.tag): set(keys(kind)) - common
        for kind in (*Rule.__args__, Refuse)
    }
    assert documented == true


def test_every_common_key_is_documented_with_its_default() -> None:
    documented = {cells[0]: cells[1] for cells in rows(PAGE, "Matching requests")}
    shown = {"None": "none", "": '""'}
    true = {
        name: f"{value:g}" if isinstance(value, float | int) else shown[str(value)]
        for name, value in keys(Slow).items()
        if name not in ("factor", "first_factor")
    }
    assert documented == true

"""A turn that is run again changes nothing twice, however its model words the calls."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.effects import effect_key
from tests.hosts.tool_server import ask, outcomes, tool_server
from tests.servers import ServerProcess

PAY = '{"account":"%s","amount":1,"parts":1,"note":null,"to":"the café"}'
FORMS = {
    "the same": PAY,
    "keys in another order": '{"to":"the café","note":null,"amount":1,"account":"%s","parts":1}',
    "white space": ' {\n"account" : "%s",\t"amount": 1, "parts": 1, "note": null, '
    '"to": "the café"}\n',
    "defaults left out": '{"account":"%s","amount":1}',
    "null for an optional parameter": '{"account":"%s","amount":1,"parts":null,"to":null}',
    "a fraction of nothing": '{"account":"%s","amount":1.0,"parts":1.0}',
    "an exponent": '{"account":"%s","amount":1e0,"parts":10e-1}',
    "escapes": '{"\\u0061ccount":"%s","amount":1,"to":"the caf\\u00e9"}',
    "escaped slashes and solidus": '{"account":"%s","amount":100E-2,"to":"\\u0074he café"}',
    "a key that is there twice": '{"account":"no","account":"%s","amount":7,"amount":1}',
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with tool_server(tmp_path_factory.mktemp("keys")) as server:
        yield server


def payments(server: ServerProcess, account: str) -> int:
    (result,) = outcomes(server, ("payments", {"account": account}))
    return int(result["content"])


@pytest.mark.parametrize("form", FORMS)
def test_a_change_is_made_once_however_its_arguments_are_written(
    server: ServerProcess, form: str
) -> None:
    account = form.replace(" ", "-")
    first = [[["pay", PAY % account]], "FAIL"]
    again: list[Any] = [[["pay", FORMS[form] % account]], "done"]
    assert ask(server, first, again, key=account).status_code == 502
    answer = ask(server, first, again, key=account)
    assert answer.status_code == 200, answer.text
    assert not any(each["failed"] for each in answer.json()["tool_calls"])
    assert payments(server, account) == 1


@pytest.mark.parametrize(
    "different",
    [
        '{"account":"%s","amount":1.5}',
        '{"account":"%s","amount":1,"parts":2}',
        '{"account":"%s","amount":1,"note":""}',
        '{"account":"%s","amount":1,"to":"the cafe\\u0301"}',
    ],
)
def test_different_arguments_are_a_different_change(server: ServerProcess, different: str) -> None:
    account = f"other-{hash(different)}"
    steps = [[["pay", PAY % account], ["pay", different % account]], "done"]
    assert ask(server, steps).status_code == 200
    assert payments(server, account) == 2


def test_two_equal_changes_of_one_turn_are_two_and_stay_two(server: ServerProcess) -> None:
    pay, other = PAY % "twice", '{"account":"else","amount":2}'
    first = [[["pay", pay], ["pay", other], ["pay", pay]], "FAIL"]
    again = [[["pay", other], ["pay", pay]], "done"]
    assert ask(server, first, again, key="twice").status_code == 502
    assert ask(server, first, again, key="twice").status_code == 200
    assert payments(server, "twice") == 2
    assert payments(server, "else") == 1


def test_another_turn_has_other_keys(server: ServerProcess) -> None:
    for text in ("one", "two"):
        assert ask(server, [[["pay", PAY % "turns"]], text], key=text).status_code == 200
    assert payments(server, "turns") == 2


places = st.tuples(st.text(max_size=20), st.integers(1, 99), st.integers(0, 99))


@given(first=places, second=places)
def test_keys_differ_by_turn_step_and_place(first: Any, second: Any) -> None:
    assert (effect_key(*first) == effect_key(*second)) == (first == second)

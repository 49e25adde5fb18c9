"""A turn that is run again changes nothing twice, however its model words the calls."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.tools.effects import EffectKeys
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
    "in a later step": PAY,
    "beside other calls": PAY,
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
    if form == "in a later step":
        again.insert(0, [["healthy", "{}"]])
    if form == "beside other calls":
        again[0] = [["healthy", "{}"], ["payments", '{"account":"x"}'], *again[0]]
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
    again = [[["pay", other]], [["pay", pay]], [["healthy", "{}"], ["pay", pay]], "done"]
    assert ask(server, first, again, key="twice").status_code == 502
    assert ask(server, first, again, key="twice").status_code == 200
    assert payments(server, "twice") == 2
    assert payments(server, "else") == 1


def test_another_turn_has_other_keys(server: ServerProcess) -> None:
    for text in ("one", "two"):
        assert ask(server, [[["pay", PAY % "turns"]], text], key=text).status_code == 200
    assert payments(server, "turns") == 2


calls = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([b"1", b"2"])), min_size=1, max_size=12
)


@settings(max_examples=100, deadline=None)
@given(calls=calls, order=st.randoms())
def test_keys_depend_on_the_calls_and_not_on_their_order(calls: Any, order: Any) -> None:
    keys = EffectKeys("turn")
    made = sorted((*call, keys.claim(*call).key) for call in calls)
    assert len({key for *_, key in made}) == len(calls)
    shuffled = list(calls)
    order.shuffle(shuffled)
    keys = EffectKeys("turn")
    assert sorted((*call, keys.claim(*call).key) for call in shuffled) == made


def test_a_call_that_failed_and_is_repeated_is_the_same_effect() -> None:
    keys = EffectKeys("turn")
    first, second = keys.claim("a", b"1"), keys.claim("a", b"1")
    keys.release(first)
    assert keys.claim("a", b"1").key == first.key
    assert keys.claim("a", b"1").key not in (first.key, second.key)

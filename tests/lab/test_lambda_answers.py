"""The local function URL with arbitrary results of a function."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.lab.local_lambda.function_url import _Malformed, _parse_answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1_000, 70_000) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
NAME = st.sampled_from(["statusCode", "headers", "cookies", "body", "isBase64Encoded"])


@given(st.dictionaries(NAME, JSON, max_size=5), st.booleans())
def test_a_result_is_a_valid_response_or_an_error(answer: dict[str, Any], with_body: bool) -> None:
    try:
        status, headers, body = _parse_answer(json.dumps(answer).encode(), with_body=with_body)
    except _Malformed:
        return
    assert 200 <= status <= 599
    assert isinstance(body, bytes)
    assert not [each for each in headers if set("".join(each)) & set("\r\n\0")]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"statusCode": 200, "headers": {"a\\r\\nb": "c"}}',
        b'{"statusCode": 200, "headers": {"a": "c\\r\\nd: e"}}',
        b'{"statusCode": 200, "cookies": ["a=b\\r\\n"]}',
        b'{"statusCode": 99999}',
        b'{"statusCode": 1e400}',
        b"[" * 100_000,
    ],
)
def test_response_splitting_is_rejected(answer: bytes) -> None:
    with pytest.raises(_Malformed):
        _parse_answer(answer)

"""Documents are read whole or refused with a message that says where and why."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seawall.tools.openapi.document import Document, DocumentFault, open_document
from seawall.tools.openapi.operations import read_operations
from seawall.tools.openapi.yaml_reader import MalformedYaml, read_yaml
from tests.tools.openapi.documents import document_of, one_operation, operation_of

TEXT = "openapi: 3.0.3\npaths:\n  /a:\n    get: {}\n"


def read(text: str | bytes) -> Any:
    return read_yaml(text if isinstance(text, bytes) else text.encode(), max_nodes=100_000)


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = """
    on: yes
    off: no
    date: 2026-11-29
    200: ok
    null: ~
    version: 1.10
    hex: 0x1F
    octal: 0o17
    leading: 012
    float: [1e3, -.5, 1., .inf, .nan]
    text: [!!str 12, "12", '~', 1_000, 1:30, 08:00, 0b1, =]
    tagged: [!!int 3, !!float 3, !!bool true, !!null ~, ! 12]
    """
    assert read(text) == {
        "on": "yes",
        "off": "no",
        "date": "2026-11-29",
        "200": "ok",
        "null": None,
        "version": 1.1,
        "hex": 31,
        "octal": 15,
        "leading": 12,
        "float": [1000.0, -0.5, 1.0, ".inf", ".nan"],
        "text": ["12", "12", "~", "1_000", "1:30", "08:00", "0b1", "="],
        "tagged": [3, 3.0, True, None, "12"],
    }


def test_anchors_and_merge_keys() -> None:
    text = """
    base: &base {a: 1, b: 2}
    one: {<<: *base, b: 3}
    two: {<<: [*base, {c: 4}], "<<": 5}
    """
    found = read(text)
    assert found["one"] == {"a": 1, "b": 3}
    assert found["two"] == {"a": 1, "b": 2, "c": 4, "<<": 5}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: &x [*x]", "line 1: [*]x contains itself"),
        ("a: *x", "line 1: [*]x is not defined"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' occurs twice"),
        ("a: !!python/object/apply:os.system [x]", "line 1: the tag .* has no meaning here"),
        ("a: !!binary aGk=", "line 1: the tag .* has no value in JSON"),
        ("a: !!int x", "line 1: the tag"),
        ("", "it is empty"),
        ("a: [", "line 1|line 2"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("? [a]\n: 1", "line 1: a key must be text"),
        ("<<: 3", "line 1|line 2"),
        ("- " * 5_000, "line 1: .*nesting depth"),
        ("[" * 50_000, "line 1: .*nesting depth"),
        (b"a: \xff", "UTF-8|octet"),
        (b"a: \0", "control characters"),
    ],
)
def test_what_json_has_no_value_for_is_refused(text: str | bytes, fault: str) -> None:
    with pytest.raises(MalformedYaml, match=fault):
        read(text)


def test_a_billion_laughs_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(MalformedYaml, match="more than 100000 values, aliases expanded"):
        read("\n".join(lines))


# PyYAML writes YAML 1.1, in which these are text.
NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+")

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=9
    ).filter(lambda text: not NUMBER.fullmatch(text)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("aé<-: #", max_size=5), inner)
    ),
    max_leaves=20,
)


@given(value=PLAIN, flow=st.booleans())
def test_what_another_program_writes_is_read(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert read(text) == value
    assert read(json.dumps(value, ensure_ascii=False)) == value


@given(text=st.text("ab:-[]{}&*!<#'\"|>?%@,~.0\n ", max_size=60) | st.binary(max_size=40))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    with suppress(MalformedYaml):
        json.dumps(read(text))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("swagger: '2.0'\npaths: {}", "api.yaml: Swagger 2.0 is not supported"),
        ("openapi: 4.0.0", "api.yaml: `openapi` is '4.0.0'; supported are 3.0 and 3.1"),
        ("openapi: 3.10", "api.yaml: it has no paths"),  # a number: 3.1
        ("info: {}", "`openapi` is ''"),
        ("- 1", "no object"),
        ("openapi: 3.0.0", "api.yaml: it has no paths"),
        ("openapi: 3.1.0\npaths: {}\n", "api.yaml: it has no paths"),
        ('{"openapi": "3.0.0", "paths"', "api.yaml: line 2"),
        ("x" * (17 << 20), "api.yaml: it has more than 16 MiB"),
        ('{"openapi": ' + "[" * 100_000, "nest"),
    ],
)
def test_what_is_no_document_is_refused_by_name(text: str, fault: str) -> None:
    with pytest.raises(DocumentFault, match=fault):
        read_operations(Document("api.yaml", text.encode(), None), ["*"])


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "api.yaml"


def test_parts_may_be_in_files_beside_the_document(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "api.yaml": (
                "openapi: 3.1.0\nservers: [{url: https://api.example.com}]\n"
                "paths:\n  /things/{id}:\n    $ref: paths/thing.yaml\n"
                "components: {schemas: {Size: {enum: [s, m]}}}\n"
            ),
            "paths/thing.yaml": (
                "parameters: [{$ref: '../parts/parameters.yaml#/Id'}]\n"
                "put:\n  operationId: put\n  requestBody:\n    required: true\n"
                "    content: {application/json: {schema: {$ref: ../parts/thing.json}}}\n"
            ),
            "parts/parameters.yaml": "Id: {name: id, in: path, required: true, schema: {}}\n",
            "parts/thing.json": json.dumps(
                {
                    "type": "object",
                    "properties": {
                        "size": {"$ref": "../api.yaml#/components/schemas/Size"},
                        "parent": {"$ref": "thing.json"},
                    },
                }
            ),
        },
    )
    operation = operation_of(open_document(path), "PUT /things/{id}")
    assert list(operation.schema["properties"]) == ["id", "size", "parent"]
    names = list(operation.schema["$defs"])
    assert names[0] == "Size"
    assert names[1].startswith("thing_")


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("../secret.yaml", "leads out of the document's folder"),
        ("parts/../../secret.yaml", "leads out of the document's folder"),
        ("%2e%2e/secret.yaml", "leads out of the document's folder"),
        ("link.yaml", "cannot be read: it is outside the document's folder"),
        ("/etc/passwd", "leads elsewhere"),
        ("file:///etc/passwd", "leads elsewhere"),
        ("https://example.com/a.yaml", "leads elsewhere"),
        ("//example.com/a.yaml", "leads elsewhere"),
        ("missing.yaml", "cannot be read: there is no such file"),
        ("parts", "cannot be read: there is no such file"),
        ("#/components/nothing", "leads nowhere"),
        ("#anchor", "names an anchor"),
        ("#/paths/~1a/post/parameters/0", "it refers to itself"),
    ],
)
def test_references_lead_out_of_the_folder_nowhere(
    tmp_path: Path, reference: str, fault: str
) -> None:
    (tmp_path / "secret.yaml").write_text("name: secret\nin: query\n")
    folder = tmp_path / "api"
    (folder / "parts").mkdir(parents=True)
    (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    path = write(
        folder,
        {
            "api.yaml": "openapi: 3.1.0\npaths:\n  /a:\n    post:\n      operationId: op\n"
            f"      parameters: [{{$ref: '{reference}'}}]\n"
        },
    )
    with pytest.raises(DocumentFault, match=f"api.yaml: POST /a: .*{fault}"):
        read_operations(open_document(path), ["op"])


def test_a_document_without_a_folder_has_no_files_beside_it() -> None:
    document = document_of(one_operation({"parameters": [{"$ref": "parts.yaml#/Id"}]}))
    with pytest.raises(DocumentFault, match="there is none beside an address"):
        read_operations(document, ["op"])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentFault, match=r"orders\.yaml: it cannot be read"):
        open_document(tmp_path / "orders.yaml")

"""`/seawall-chat.js`: one small file, the same bytes from the same sources, for any page."""

import gzip
import re

import httpx2

from seawall.widget import MODULES, bundle, module_text
from tests.servers import ServerProcess
from tests.widget.conftest import caller

_TOP_LEVEL = re.compile(
    r"^(?:export )?(?:async )?(?:function\*?|class|const|let) (\w+)", re.MULTILINE
)


def test_it_is_small_and_reproducible() -> None:
    made = bundle()
    assert len(made.compressed) < 30_000
    bundle.cache_clear()
    assert bundle() == made


def test_its_modules_fit_into_one_function() -> None:
    names = [name for module in MODULES for name in _TOP_LEVEL.findall(module_text(module))]
    assert len(names) == len(set(names))
    text = bundle().text.decode()
    assert not re.search(r"^\s*(import|export)\b", text, re.MULTILINE)
    for module in MODULES:
        imported = re.findall(r'from "\./(\w+)\.js"', module_text(module))
        assert all(MODULES.index(each) < MODULES.index(module) for each in imported)


def test_it_never_makes_markup_or_code_of_text() -> None:
    text = bundle().text.decode()
    for name in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "localStorage",
    ):
        assert name not in text


def test_it_is_served_to_any_page(server: ServerProcess) -> None:
    made = bundle()
    with caller(server, "nobody") as client:  # it needs no credential
        plain = client.get("/seawall-chat.js", headers={"accept-encoding": "identity"})
        assert plain.content == made.text
        assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
        assert plain.headers["access-control-allow-origin"] == "*"
        assert plain.headers["cross-origin-resource-policy"] == "cross-origin"
        assert plain.headers["etag"] == f'"{made.integrity}"'
        packed = client.get("/seawall-chat.js", headers={"accept-encoding": "gzip, br"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == made.text
        assert int(packed.headers["content-length"]) == len(made.compressed)
        assert gzip.decompress(made.compressed) == made.text
        known = {"if-none-match": plain.headers["etag"]}
        assert client.get("/seawall-chat.js", headers=known).status_code == 304
        head = client.head("/seawall-chat.js")
        assert (head.status_code, head.content) == (200, b"")
        assert client.post("/seawall-chat.js").status_code == 405
        assert httpx2.get(f"{server.url}/seawall-chat.js/x", timeout=20).status_code == 404

"""One server for all tests of the driver."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.hosts.conftest import identity
from tests.issuer import Issuer
from tests.servers import running_model, running_server


class Site(Struct, frozen=True):
    """A server with one worker, and the issuer of its tokens."""

    url: str
    pid: int
    issuer: Issuer

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(each) for each in found]


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    issuer = Issuer()
    issuer.add("one")
    return issuer


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("surge")
    times = ("--first-token", "0.02..0.05", "--duration", "0.1..0.2", "--chunks", "10")
    settings = identity(folder, issuer) | {"SERVER__WORKERS": "1", "SERVER__WARM_UP": "true"}
    with running_model(*times) as model, running_server(folder, model, **settings) as server:
        yield Site(server.url, server.process.pid, issuer)

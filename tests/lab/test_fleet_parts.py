"""Parts of fleets that need no running fleet: words, control groups, connections."""

import os
import socket
from pathlib import Path

import pytest

from seawall.errors import ConfigError
from seawall.lab.control_groups import ControlGroups, ControlGroupsUnavailable
from seawall.lab.fleet.balancer import find_balancer
from seawall.lab.fleet.spec import parse_fleet
from seawall.lab.processes import ESTABLISHED, listening_process, open_files, tcp_sockets
from tests.parts import require


@pytest.mark.parametrize("first", [True, False])
def test_both_versions_of_control_groups(tmp_path: Path, *, first: bool) -> None:
    """The files of the kernel's documentation, in a temporary folder."""
    own = tmp_path / "own"
    own.write_text("1:cpu,cpuacct:/mine\n" if first else "0::/theirs/mine\n")
    base = tmp_path / ("cpu/mine" if first else "theirs")
    (base / "mine").mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (base / "cgroup.subtree_control").write_text("cpu memory\n")
    (base / "mine" / "cgroup.subtree_control").write_text("\n")
    (base / "cgroup.procs").touch()
    folder = ControlGroups(tmp_path, own).make("pod", 0.25)
    assert folder == base / "pod"
    if first:
        assert (folder / "cpu.cfs_quota_us").read_text() == "25000"
    else:
        assert (folder / "cpu.max").read_text() == "25000 100000"


def test_the_error_explains_why_groups_are_unavailable(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("3:memory:/\n")
    with pytest.raises(ControlGroupsUnavailable, match="no control group with cpu"):
        ControlGroups(tmp_path, own)
    own.write_text("0::/mine\n")
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ControlGroupsUnavailable, match="mine upwards delegates cpu"):
        ControlGroups(tmp_path, own)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connections_are_attributed_to_processes(host: str) -> None:
    """For both versions of IP, as a store may be reached by either."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening, socket.socket(family) as client:
        try:
            listening.bind((host, 0))
        except OSError:
            require(f"{host} is not available")
        listening.listen()
        port = listening.getsockname()[1]
        client.connect((host, port))
        sockets = {name for name, _, peer in tcp_sockets(ESTABLISHED) if peer == port}
        assert sockets == {f"socket:[{os.fstat(client.fileno()).st_ino}]"}
        assert sockets <= open_files(os.getpid())
        assert listening_process(port) == os.getpid()


def test_pods_need_a_balancer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="install haproxy or nginx"):
        find_balancer(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["four"], "is not NAME=VALUE"),
        (["memory=512"], "no kind"),
        (["pods=2", "lambda"], "no kind"),
        (["pods=0"], "pods: must be 1 or more"),
        (["pods=2", "memory=512"], "memory: does not apply to pods"),
        (["lambda", "balance=least"], "balance: does not apply to lambda"),
        (["lambda", "colour=red"], "colour: unknown"),
        (["lambda", "store=here"], "neither sqlite nor"),
        (["lambda", "store=http://host:port"], "neither sqlite nor"),
        (["lambda", "model=here"], "model: is not an http"),
        (["lambda", "memory=64"], "memory: must be from 128 to 32768"),
        (["lambda", "timeout=901"], "timeout: must be from"),
        (["lambda", "idle=0"], "idle: must be from"),
        (["lambda", "init=-1"], "init: must be from"),
        (["lambda", "provisioned=-1"], "provisioned: must be from"),
        (["lambda", "cpu=0.5"], "cpu: for lambda 0"),
        (["lambda", "snapstart", "provisioned=1"], "snapstart: cannot be combined"),
        (["lambda", "snapstart", "in-flight=2"], "snapstart: cannot be combined"),
    ],
)
def test_invalid_words_are_rejected(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_fleet(words)


def test_the_old_word_for_slots_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_fleet(["pods=1", "places=7"]).slots == 7
    assert "places is now called slots" in caplog.text


def test_words_are_parsed_to_a_fleet() -> None:
    spec = parse_fleet(["lambda", "memory=1769", "in-flight=8", "provisioned=2"])
    assert (spec.kind, spec.memory, spec.in_flight, spec.provisioned) == ("lambda", 1769, 8, 2)
    assert parse_fleet(["pods=4", "cpu=0.5"]).title == "4 pods of 0.5 processors"

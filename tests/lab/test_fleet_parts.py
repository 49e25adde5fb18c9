"""Parts of fleets that need no fleet: words, control groups, who has which connection."""

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
    """The files that the kernel's documentation names; here in a folder of our own."""
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


def test_where_no_groups_can_be_made_it_says_so(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("3:memory:/\n")
    with pytest.raises(ControlGroupsUnavailable, match="no control group with cpu"):
        ControlGroups(tmp_path, own)
    own.write_text("0::/mine\n")
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ControlGroupsUnavailable, match="mine upwards hands on cpu"):
        ControlGroups(tmp_path, own)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connections_are_told_by_who_has_them(host: str) -> None:
    """Of either version of IP, as a store may be reached by both."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening, socket.socket(family) as client:
        try:
            listening.bind((host, 0))
        except OSError:
            require(f"there is no {host} here")
        listening.listen()
        port = listening.getsockname()[1]
        client.connect((host, port))
        there = {name for name, _, peer in tcp_sockets(ESTABLISHED) if peer == port}
        assert there == {f"socket:[{os.fstat(client.fileno()).st_ino}]"}
        assert there <= open_files(os.getpid())
        assert listening_process(port) == os.getpid()


def test_pods_need_a_balancer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="install haproxy or nginx"):
        find_balancer(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["four"], "is not NAME=VALUE"),
        (["memory=512"], "what kind"),
        (["pods=2", "lambda"], "what kind"),
        (["pods=0"], "pods: must be 1 or more"),
        (["pods=2", "memory=512"], "memory: means nothing for pods"),
        (["lambda", "balance=least"], "balance: means nothing for lambda"),
        (["lambda", "colour=red"], "colour: unknown"),
        (["lambda", "store=here"], "neither sqlite nor"),
        (["lambda", "store=http://host:port"], "neither sqlite nor"),
        (["lambda", "model=here"], "model: is not an http"),
        (["lambda", "memory=64"], "memory: must be from 128 to 32768"),
        (["lambda", "timeout=901"], "timeout: must be from"),
        (["lambda", "idle=0"], "idle: must be from"),
        (["lambda", "init=-1"], "init: must be from"),
        (["lambda", "provisioned=-1"], "provisioned: must be from"),
        (["lambda", "cpu=0.5"], "cpu: of lambda is 0"),
        (["lambda", "snapstart", "provisioned=1"], "snapstart: goes neither"),
        (["lambda", "snapstart", "in-flight=2"], "snapstart: goes neither"),
    ],
)
def test_words_that_mean_nothing_are_told(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_fleet(words)


def test_words_become_a_fleet() -> None:
    spec = parse_fleet(["lambda", "memory=1769", "in-flight=8", "provisioned=2"])
    assert (spec.kind, spec.memory, spec.in_flight, spec.provisioned) == ("lambda", 1769, 8, 2)
    assert parse_fleet(["pods=4", "cpu=0.5"]).title == "4 pods of 0.5 processors"

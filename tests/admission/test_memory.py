"""Memory bound of a process, read from trees like those of Linux."""

import os
from pathlib import Path

from seawall.admission.memory import memory_bound, resident_bytes


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal:       24683520 kB\nMemFree: 1 kB\n"}
TOTAL = 24_683_520 << 10


def test_version_2_counts_every_group_up_to_the_root(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        MACHINE
        | {
            "proc/self/cgroup": "0::/pods/one\n",
            "sys/fs/cgroup/pods/one/memory.max": "max\n",
            "sys/fs/cgroup/pods/memory.max": "536870912\n",
        },
    )
    assert memory_bound(root) == 512 << 20


def test_version_1_and_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        MACHINE
        | {
            "proc/self/cgroup": "5:cpu:/x\n4:memory,other:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
        },
    )
    assert memory_bound(root) == 256 << 20


def test_without_a_limit_it_is_the_machine(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        MACHINE
        | {
            "proc/self/cgroup": "4:memory:/a\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert memory_bound(root) == TOTAL


def test_without_any_source_there_is_no_bound(tmp_path: Path) -> None:
    assert memory_bound(tmp_path) == 0


def test_this_process() -> None:
    if os.path.exists("/proc/self/statm"):  # noqa: PTH110
        assert 5 << 20 < resident_bytes() < memory_bound()

import os
import subprocess
import sys

import pytest

from scld import machine
from scld.errors import RequestError
from scld.machine import memory_left

MEMINFO = "MemTotal:  64 kB\nMemFree:  1 kB\nMemAvailable:  32 kB\n"
ROOT = "sys/fs/cgroup"
NO_LIMIT = str(2**63 - 4096)


@pytest.fixture
def system(monkeypatch, tmp_path):
    """Replaces the files of the system by these."""

    def replace(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(machine, "Path", lambda name: tmp_path / name.lstrip("/"))
        monkeypatch.setattr(machine, "_CGROUP", tmp_path / ROOT)

    return replace


def version_2(folder, limit, used, cache=None):
    """Files of a control group of version 2."""
    files = {"memory.max": f"{limit}\n", "memory.current": f"{used}\n"}
    if cache is not None:
        files["memory.stat"] = f"anon 5\nfile 700\ninactive_file {cache}\nactive_file 9\n"
    return {f"{ROOT}/{folder}/{name}": text for name, text in files.items()}


def version_1(folder, limit, used, cache=None):
    """Files of a control group of version 1."""
    files = {"memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": f"{used}\n"}
    if cache is not None:
        files["memory.stat"] = f"cache 5\ninactive_file 1\ntotal_inactive_file {cache}\n"
    return {f"{ROOT}/memory/{folder}/{name}": text for name, text in files.items()}


OF_2 = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/pod/job\n"}
OF_1 = {
    "proc/meminfo": MEMINFO,
    "proc/self/cgroup": "12:cpu,cpuacct:/\n4:memory:/docker/abc\n1:name=systemd:/docker\n0::/\n",
}
MACHINE = 32 * 1024


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"proc/meminfo": MEMINFO}, MACHINE),
        (OF_2, MACHINE),
        (OF_2 | version_2("pod/job", "max", 20, 0), MACHINE),
        (OF_2 | version_2("pod/job", 1000, 20, 0), 980),
        (OF_2 | version_2("pod/job", 1000, 300, 250), 950),
        (OF_2 | version_2("pod/job", 1000, 300), 700),
        (OF_2 | version_2("pod/job", 1000, 100, 250), 1000),
        (OF_2 | version_2("pod/job", 1000, 1200, 0), 0),
        (OF_2 | version_2("pod/job", 10**9, 20, 0), MACHINE),
        (OF_2 | version_2("pod", 500, 20, 0) | version_2("pod/job", "max", 20, 0), 480),
        (OF_2 | version_2("pod", 500, 20, 0) | version_2("pod/job", 100, 20, 0), 80),
        (OF_2 | version_2("", 300, 20, 0), 280),
        (OF_2 | version_2("pod/other", 5, 0, 0), MACHINE),
        (OF_1 | version_1("docker/abc", 1000, 300, 250), 950),
        (OF_1 | version_1("docker/abc", 1000, 300), 700),
        (OF_1 | version_1("docker/abc", NO_LIMIT, 300, 250), MACHINE),
        (OF_1 | version_1("docker/abc", NO_LIMIT, 1, 0) | version_1("", 200, 20, 0), 180),
        (OF_1 | version_1("", 200, 20, 0), 180),
        (OF_1 | version_1("docker/abc", "damaged", 300, 250), MACHINE),
    ],
    ids=[
        "no control group",
        "no files of the control group",
        "version 2, no limit",
        "version 2",
        "version 2, file cache can be dropped",
        "version 2, file cache not known",
        "version 2, more file cache than use",
        "version 2, more use than the limit",
        "version 2, the machine has less",
        "version 2, limit of the group above",
        "version 2, both have limits",
        "version 2, seen from within a container",
        "version 2, limit of another group",
        "version 1, file cache can be dropped",
        "version 1, file cache not known",
        "version 1, no limit",
        "version 1, limit of the root",
        "version 1, seen from within a container",
        "version 1, damaged",
    ],
)
def test_the_least_of_what_the_machine_and_the_control_groups_leave(system, files, left):
    system(files)
    assert memory_left() == left


def test_a_control_group_counts_where_the_machine_does_not_say(system, monkeypatch):
    monkeypatch.setattr(os, "sysconf_names", {})
    system({"proc/self/cgroup": "0::/job\n"} | version_2("job", 10**15, 20, 0))
    assert memory_left() == 10**15 - 20


def test_a_machine_without_meminfo_has_all_of_its_memory_left(system):
    system({})
    assert memory_left() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_system_that_says_nothing_limits_nothing(system, monkeypatch):
    monkeypatch.setattr(os, "sysconf_names", {})
    system(OF_1 | version_1("docker/abc", NO_LIMIT, 20, 0) | {"proc/meminfo": "MemTotal: 64 kB"})
    assert memory_left() is None


def test_of_this_machine_something_is_left():
    left = memory_left()
    assert left is None or 0 < left <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_limit_of_the_address_space_counts():
    code = "from scld.machine import memory_left; print(memory_left())"
    command = ["bash", "-c", f"ulimit -v 1000000; {sys.executable} -c '{code}'"]
    left = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0 < left < 1_000_000 * 1024


# Threads

THREADS = """
import sys
import scld
scld.set_threads(2)
assert "torch" not in sys.modules
import numpy, scipy.linalg, torch
from threadpoolctl import threadpool_info
print(torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info()))
scld.set_threads(1)
print(torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info()))
"""


def test_threads_are_set_for_libraries_that_are_loaded_and_that_will_be():
    ran = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=True
    )
    first, second = (set(line.split()) for line in ran.stdout.splitlines())
    assert first <= {"1", "2"}  # no more than there are cores
    assert second == {"1"}


@pytest.mark.parametrize("n", [0, -1, 2.0, "2", True, None])
def test_a_number_of_threads_that_cannot_be_is_refused(n):
    with pytest.raises(RequestError, match=r"threads: got .*; allowed are integers from 1"):
        machine.set_threads(n)

"""What OCI resources become in control files: version 2 on a directory tree, version 1 there and on the real one."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from boxship.runtime import cgroups
from boxship.runtime.cgroups import CgroupsV1, CgroupsV2, devices
from boxship.runtime.cgroups.contract import read_int, read_pairs, remove_tree

CONTROLLERS_V1 = ["blkio", "cpu,cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd"]


@pytest.fixture
def v2(tmp_path: Path) -> CgroupsV2:
    root = tmp_path / "v2"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
    return CgroupsV2(root)


@pytest.fixture
def v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CgroupsV1:
    root = tmp_path / "v1"
    for name in CONTROLLERS_V1:
        (root / name).mkdir(parents=True)
        (root / name / "cgroup.procs").touch()
    for name in ("cpu", "cpuacct"):
        (root / name).symlink_to("cpu,cpuacct")
    # only a kernel gives a new group its files
    monkeypatch.setattr(CgroupsV1, "_inherit_cpuset", lambda self, directory: None)
    (root / "unified").mkdir()
    (root / "unified" / "cgroup.procs").touch()
    return CgroupsV1(root)


def files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file() and path.read_text()}


def test_which_version_is_seen_by_what_is_mounted(tmp_path: Path, v1: CgroupsV1, v2: CgroupsV2) -> None:
    assert cgroups.detect(tmp_path / "v1").version == 1
    assert cgroups.detect(tmp_path / "v2").version == 2
    assert cgroups.detect(tmp_path / "none").create("/x") == []


# --- version 2 ---


def test_v2_delegates_controllers_down_to_the_group(v2: CgroupsV2, tmp_path: Path) -> None:
    joins = v2.create("/boxship/abc")
    assert joins == [str(tmp_path / "v2" / "boxship" / "abc" / "cgroup.procs")]
    assert (tmp_path / "v2" / "cgroup.subtree_control").read_text().startswith("+")
    assert (tmp_path / "v2" / "boxship" / "abc").is_dir()
    assert v2.create("/boxship/abc") == joins


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, {}),
        ({"memory": {"limit": 1000}}, {"memory.max": "1000"}),
        ({"memory": {"limit": 1000, "swap": 3000}}, {"memory.max": "1000", "memory.swap.max": "2000"}),
        ({"memory": {"limit": 1000, "swap": 1000}}, {"memory.max": "1000", "memory.swap.max": "0"}),
        ({"memory": {"limit": 1000, "swap": -1}}, {"memory.max": "1000", "memory.swap.max": "max"}),
        ({"memory": {"limit": -1, "swap": -1}}, {"memory.max": "max", "memory.swap.max": "max"}),
        ({"memory": {"reservation": 500}}, {"memory.low": "500"}),
        ({"cpu": {"shares": 2}}, {"cpu.weight": "1"}),
        ({"cpu": {"shares": 1024}}, {"cpu.weight": "39"}),
        ({"cpu": {"shares": 262144}}, {"cpu.weight": "10000"}),
        ({"cpu": {"shares": 10**9}}, {"cpu.weight": "10000"}),
        ({"cpu": {"quota": 50_000, "period": 200_000}}, {"cpu.max": "50000 200000"}),
        ({"cpu": {"quota": 50_000}}, {"cpu.max": "50000 100000"}),
        ({"cpu": {"quota": -1}}, {"cpu.max": "max 100000"}),
        ({"cpu": {"period": 10_000}}, {"cpu.max": "max 10000"}),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, {"cpuset.cpus": "0-1", "cpuset.mems": "0"}),
        ({"pids": {"limit": 7}}, {"pids.max": "7"}),
        ({"pids": {"limit": -1}}, {"pids.max": "max"}),
        ({"pids": {"limit": 0}}, {}),
        ({"blockIO": {"weight": 10}}, {"io.weight": "default 1"}),
        ({"blockIO": {"weight": 1000}}, {"io.weight": "default 10000"}),
        ({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 99}]}}, {"io.max": "8:0 rbps=99"}),
        ({"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 5}]}}, {"io.max": "8:1 wiops=5"}),
    ],
)
def test_v2_translation(v2: CgroupsV2, tmp_path: Path, resources: dict[str, Any], expected: dict[str, str]) -> None:
    v2.create("/g")
    directory = tmp_path / "v2" / "g"
    (directory / "memory.swap.max").touch()
    v2.apply("/g", resources)
    assert files(directory) == expected


def test_v2_without_swap_accounting_goes_without_it(v2: CgroupsV2, tmp_path: Path) -> None:
    v2.create("/g")
    v2.apply("/g", {"memory": {"limit": 1000, "swap": 2000}})
    assert files(tmp_path / "v2" / "g") == {"memory.max": "1000"}


def test_v2_weight_by_bfq_where_that_is_there(v2: CgroupsV2, tmp_path: Path) -> None:
    v2.create("/g")
    (tmp_path / "v2" / "g" / "io.bfq.weight").touch()
    v2.apply("/g", {"blockIO": {"weight": 300}})
    assert files(tmp_path / "v2" / "g") == {"io.bfq.weight": "300"}


V2_READINGS = {
    "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\n",
    "memory.current": "100\n",
    "memory.peak": "200\n",
    "memory.max": "max\n",
    "memory.events": "low 0\nmax 6\noom 2\noom_kill 1\n",
    "memory.stat": "anon 10\nfile 20\n",
    "pids.current": "3\n",
    "pids.max": "50\n",
    "cgroup.procs": "12\n13\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n253:1 rbytes=5\n",
}


def test_v2_readings(v2: CgroupsV2, tmp_path: Path) -> None:
    v2.create("/g")
    directory = tmp_path / "v2" / "g"
    for name, text in V2_READINGS.items():
        (directory / name).write_text(text)
    stats = v2.stats("/g")
    assert (stats.cpu_total, stats.cpu_user, stats.cpu_system, stats.throttled_time) == (5000, 3000, 2000, 7000)
    assert (stats.periods, stats.throttled_periods) == (9, 4)
    assert (stats.memory_usage, stats.memory_max_usage, stats.memory_limit, stats.memory_failures) == (100, 200, 0, 6)
    assert stats.memory_details == {"anon": 10, "file": 20}
    assert (stats.pids, stats.pids_limit) == (3, 50)
    assert stats.block_bytes == ((8, 0, "Read", 1), (8, 0, "Write", 2), (253, 1, "Read", 5))
    assert stats.block_operations == ((8, 0, "Read", 3), (8, 0, "Write", 4))
    assert v2.oom_kills("/g") == 1
    assert v2.processes("/g") == [12, 13]
    v2.freeze("/g", frozen=True)
    assert (directory / "cgroup.freeze").read_text() == "1"
    assert v2.mounts("/g") == [("", directory)]


def test_of_a_group_that_has_gone_everything_is_nothing(v1: CgroupsV1, v2: CgroupsV2) -> None:
    for groups in (v1, v2):
        assert groups.stats("/gone") == cgroups.CgroupStats()
        assert groups.processes("/gone") == []
        assert groups.oom_kills("/gone") == 0
        assert groups.delete("/gone") is True
        with pytest.raises(OSError, match="max"):
            groups.apply("/gone", {"pids": {"limit": 5}})


# --- the device filter of version 2 ---


def run_filter(program: bytes, kind: int, access: int, major: int, minor: int) -> bool:
    """What the kernel would make of the program for `struct bpf_cgroup_dev_ctx`."""
    context = struct.pack("<III", access << 16 | kind, major, minor)
    registers = [0] * 11
    position = 0
    steps = list(struct.iter_unpack("<BBhi", program))
    while True:
        code, both, offset, immediate = steps[position]
        destination, source = both & 15, both >> 4
        position += 1
        match code:
            case 0x61:
                registers[destination] = struct.unpack_from("<I", context, offset)[0]
            case 0xBF:
                registers[destination] = registers[source]
            case 0xB7:
                registers[destination] = immediate
            case 0x57:
                registers[destination] &= immediate
            case 0x77:
                registers[destination] >>= immediate
            case 0x55:
                position += offset if registers[destination] != immediate else 0
            case 0x5D:
                position += offset if registers[destination] != registers[source] else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(hex(code))


BLOCK, CHAR = 1, 2
MKNOD, READ, WRITE = 1, 2, 4


def test_the_last_rule_that_fits_decides() -> None:
    program = devices.program([
        {"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "c", "major": 136, "minor": None, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
        {"allow": False, "type": "c", "major": 136, "minor": 7, "access": "rwm"},
    ])  # fmt: skip
    cases = [
        ((CHAR, READ | WRITE, 1, 3), True), ((CHAR, READ, 1, 4), False), ((CHAR, MKNOD, 5, 5), True),
        ((BLOCK, MKNOD, 8, 0), False),
        ((CHAR, READ | WRITE, 136, 3), True), ((CHAR, READ, 136, 7), False), ((BLOCK, READ, 8, 0), True),
        ((BLOCK, READ | WRITE, 8, 0), False), ((BLOCK, READ, 8, 1), False), ((CHAR, MKNOD | READ, 136, 3), False),
    ]  # fmt: skip
    assert [run_filter(program, *request) for request, _ in cases] == [allowed for _, allowed in cases]


def test_no_rules_allow_nothing_and_one_can_allow_all() -> None:
    assert run_filter(devices.program([]), CHAR, READ, 1, 3) is False
    assert run_filter(devices.program([{"allow": True, "access": "rwm"}]), BLOCK, READ | WRITE | MKNOD, 8, 0) is True


# --- version 1 ---


def test_v1_makes_the_group_in_every_hierarchy(v1: CgroupsV1, tmp_path: Path) -> None:
    joins = v1.create("/boxship/abc")
    assert joins == [f"{tmp_path}/v1/{name}/boxship/abc/cgroup.procs" for name in CONTROLLERS_V1]
    assert all((tmp_path / "v1" / name / "boxship" / "abc").is_dir() for name in CONTROLLERS_V1)
    assert [name for name, _ in v1.mounts("/boxship/abc")] == CONTROLLERS_V1


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": 1000}}, {"memory/memory.limit_in_bytes": "1000"}),
        ({"memory": {"reservation": 5, "swappiness": 0}},
         {"memory/memory.soft_limit_in_bytes": "5", "memory/memory.swappiness": "0"}),
        ({"memory": {"disableOOMKiller": True}}, {"memory/memory.oom_control": "1"}),
        ({"cpu": {"shares": 512, "quota": 7, "period": 9}},
         {"cpu,cpuacct/cpu.shares": "512", "cpu,cpuacct/cpu.cfs_quota_us": "7", "cpu,cpuacct/cpu.cfs_period_us": "9"}),
        ({"cpu": {"cpus": "1", "mems": "0"}}, {"cpuset/cpuset.cpus": "1", "cpuset/cpuset.mems": "0"}),
        ({"pids": {"limit": -1}}, {"pids/pids.max": "max"}),
        ({"blockIO": {"weight": 100}}, {"blkio/blkio.weight": "100"}),
        ({"blockIO": {"throttleWriteBpsDevice": [{"major": 1, "minor": 2, "rate": 3}]}},
         {"blkio/blkio.throttle.write_bps_device": "1:2 3"}),
        ({"devices": [{"allow": True, "type": "c", "major": 1, "minor": None, "access": "rw"}]},
         {"devices/devices.allow": "c 1:* rw"}),
        ({"devices": [{"allow": False, "access": "rwm"}]}, {"devices/devices.deny": "a"}),
    ],
)  # fmt: skip
def test_v1_translation(v1: CgroupsV1, tmp_path: Path, resources: dict[str, Any], expected: dict[str, str]) -> None:
    v1.create("/g")
    v1.apply("/g", resources)
    found = {f"{name}/{file}": text for name in CONTROLLERS_V1 for file, text in files(tmp_path / "v1" / name / "g").items()}
    assert found == expected


@pytest.mark.parametrize(
    ("before", "limit", "swap", "order"),
    [
        (1 << 62, 100, 200, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
        (200, 500, 1000, ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]),
        (1000, 100, 200, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
        (200, 100, -1, ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]),
    ],
)
def test_v1_never_lets_memory_exceed_memory_and_swap(
    v1: CgroupsV1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, limit: int, swap: int, order: list[str]
) -> None:
    v1.create("/g")
    (tmp_path / "v1" / "memory" / "g" / "memory.memsw.limit_in_bytes").write_text(str(before))
    written: list[str] = []
    monkeypatch.setattr(v1, "_set", lambda controller, path, file, value: written.append(file))
    v1.apply("/g", {"memory": {"limit": limit, "swap": swap}})
    assert written == order


def test_control_files(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for text, value in (("7\n", 7), ("max\n", 9), ("-1", -1), ("", 9), ("x", 9)):
        file.write_text(text)
        assert read_int(file, 9) == value
    assert read_int(tmp_path / "absent", 9) == 9
    file.write_text("a 1\nb x\nc 2 3\n\nd 4\n")
    assert read_pairs(file) == {"a": 1, "d": 4}
    (tmp_path / "g" / "h").mkdir(parents=True)
    assert remove_tree(tmp_path / "g") is True
    assert not (tmp_path / "g").exists()

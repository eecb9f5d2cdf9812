"""Limits: as the kernel has them for the container's control group, and as its processes feel them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.engine import Engine, wait_until

MIB = 1 << 20


def control_files(engine: Engine, name: str) -> dict[str, str]:
    """The control files of a container by `controller/name`, from the host; on version 2 the controller is empty."""
    found = {}
    for line in Path(f"/proc/{engine.inspect(name)['State']['Pid']}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            roots = [("", Path("/sys/fs/cgroup"))]
        else:
            roots = [(controller, Path("/sys/fs/cgroup", controller)) for controller in controllers.split(",")]
        for controller, root in roots:
            directory = root / path.lstrip("/")
            for file in directory.iterdir() if directory.is_dir() else ():
                if file.is_file():
                    try:
                        found[f"{controller}/{file.name}"] = file.read_text().strip()
                    except OSError:
                        continue
    return found


def version_1(engine: Engine) -> bool:
    return bool(engine.api("GET", "/info")[1]["CgroupVersion"] == "1")


def running(engine: Engine, *options: str) -> dict[str, str]:
    engine.docker("run", "-d", "--name", "it", *options, "busybox", "sleep", "1000")
    return control_files(engine, "it")


def test_memory(engine: Engine) -> None:
    files = running(engine, "--memory", "64m")
    if version_1(engine):
        # without a figure of its own, as much swap again
        assert files["memory/memory.limit_in_bytes"] == str(64 * MIB)
        assert files["memory/memory.memsw.limit_in_bytes"] == str(128 * MIB)
    else:
        assert (files["/memory.max"], files["/memory.swap.max"]) == (str(64 * MIB), str(64 * MIB))
    assert engine.inspect("it")["HostConfig"]["MemorySwap"] == 128 * MIB


def test_memory_and_swap(engine: Engine) -> None:
    files = running(engine, "--memory", "64m", "--memory-swap", "64m", "--memory-reservation", "32m")
    if version_1(engine):
        assert files["memory/memory.memsw.limit_in_bytes"] == str(64 * MIB)
        assert files["memory/memory.soft_limit_in_bytes"] == str(32 * MIB)
    else:
        assert (files["/memory.swap.max"], files["/memory.low"]) == ("0", str(32 * MIB))


def test_more_memory_than_allowed_is_the_end(engine: Engine) -> None:
    # tail keeps a line without end in memory
    done = engine.docker(
        "run", "--name", "it", "--memory", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero", check=False
    )
    assert done.returncode == 137
    state = engine.inspect("it")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def test_cpus(engine: Engine) -> None:
    files = running(engine, "--cpus", "0.5", "--cpu-shares", "512")
    if version_1(engine):
        assert (files["cpu/cpu.cfs_quota_us"], files["cpu/cpu.cfs_period_us"]) == ("50000", "100000")
        assert files["cpu/cpu.shares"] == "512"
    else:
        assert files["/cpu.max"] == "50000 100000"


def test_cpu_period_and_quota(engine: Engine) -> None:
    files = running(engine, "--cpu-period", "50000", "--cpu-quota", "20000")
    if version_1(engine):
        assert (files["cpu/cpu.cfs_quota_us"], files["cpu/cpu.cfs_period_us"]) == ("20000", "50000")
    else:
        assert files["/cpu.max"] == "20000 50000"


def test_cpuset(engine: Engine) -> None:
    assert engine.out("run", "--rm", "--cpuset-cpus", "1", "--cpuset-mems", "0", "busybox", "nproc") == "1"


def test_pids_limit(engine: Engine) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done"
    done = engine.docker("run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script, check=False)
    assert done.returncode != 0
    assert "can't fork" in done.stderr


def test_ulimit(engine: Engine) -> None:
    # more than the hard limit would need CAP_SYS_RESOURCE of the engine
    assert engine.out("run", "--rm", "--ulimit", "nofile=64:128", "--ulimit", "core=0", "busybox", "sh", "-c",
                      "ulimit -Sn; ulimit -Hn; ulimit -c").split() == ["64", "128", "0"]  # fmt: skip


def test_ulimit_holds_for_exec(engine: Engine) -> None:
    running(engine, "--ulimit", "nofile=64:128")
    assert engine.out("exec", "it", "sh", "-c", "ulimit -n") == "64"


def test_shm_size(engine: Engine) -> None:
    assert engine.out("run", "--rm", "busybox", "sh", "-c", "df -k /dev/shm | tail -1").split()[1] == str(64 << 10)
    assert engine.out("run", "--rm", "--shm-size", "8m", "busybox", "sh", "-c", "df -k /dev/shm | tail -1").split()[1] == str(
        8 << 10
    )


def test_oom_score_adj(engine: Engine) -> None:
    assert engine.out("run", "--rm", "--oom-score-adj", "321", "busybox", "cat", "/proc/self/oom_score_adj") == "321"


def removed(directory: Path) -> bool:
    """Whether a control group is gone; the kernel lets go of a child a moment after its last process."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def test_cgroup_parent(engine: Engine) -> None:
    running(engine, "--cgroup-parent", "/boxship-test-parent")
    try:
        identity = engine.inspect("it")["Id"]
        lines = Path(f"/proc/{engine.inspect('it')['State']['Pid']}/cgroup").read_text().splitlines()
        assert f"/boxship-test-parent/{identity}" in {line.split(":", 2)[2] for line in lines}
    finally:
        engine.docker("rm", "-f", "it")
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            wait_until(lambda: removed(hierarchy / "boxship-test-parent"), "the parent is empty")  # noqa: B023


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--memory", "1m"), "Minimum memory limit allowed is 6MB"),
        (("--memory", "64m", "--memory-swap", "32m"), "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (("--memory-swap", "64m"), "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (("--memory", "64m", "--memory-reservation", "65m"), "Minimum memory limit can not be less than memory reservation limit"),
        (("--cpus", "4096"), "range of CPUs is from 0.01 to"),
        (("--cpus", "1", "--cpu-quota", "20000"), "Conflicting options: Nano CPUs and CPU"),
        (("--cpu-period", "5"), "CPU cfs period can not be less than 1ms"),
        (("--cpu-quota", "5"), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (("--cpuset-cpus", "4000"), "Requested CPUs are not available - requested 4000, available:"),
        (("--cpuset-cpus", "one"), "Invalid value one for cpuset cpus"),
        (("--cpuset-mems", "77"), "Requested memory nodes are not available - requested 77, available:"),
        (("--ulimit", "nofile=10:5"), "ulimit soft limit must be less than or equal to hard limit"),
        (("--oom-score-adj", "1001"), "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        (("--blkio-weight", "5"), "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_refused(engine: Engine, options: tuple[str, ...], message: str) -> None:
    done = engine.docker("create", *options, "busybox", check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_an_ulimit_beyond_the_engines_own_is_told(engine: Engine) -> None:
    if "cap_sys_resource" in _effective():
        pytest.skip("this engine may raise limits")
    done = engine.docker("run", "--rm", "--ulimit", "nproc=9999999:9999999", "busybox", "true", check=False)
    if done.returncode:
        assert "error setting rlimit RLIMIT_NPROC" in done.stderr


def _effective() -> str:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return "cap_sys_resource" if int(line.split()[1], 16) >> 24 & 1 else ""

"""What a container may do and see: Docker's defaults, and the options that widen or narrow them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support.engine import Engine

DEFAULT_CAPABILITIES = 0xA80425FB
"""Docker's 14."""

CAP_NET_ADMIN, CAP_SYS_TIME, CAP_CHOWN = 12, 25, 0


def effective(engine: Engine, *options: str) -> int:
    return int(engine.out("run", "--rm", *options, "busybox", "grep", "^CapEff", "/proc/self/status").split()[1], 16)


def test_default_capabilities(engine: Engine) -> None:
    status = engine.out("run", "--rm", "busybox", "grep", "^Cap", "/proc/self/status")
    found = {line.split(":")[0]: int(line.split()[1], 16) for line in status.splitlines()}
    assert found == {
        "CapInh": 0, "CapPrm": DEFAULT_CAPABILITIES, "CapEff": DEFAULT_CAPABILITIES, "CapBnd": DEFAULT_CAPABILITIES, "CapAmb": 0,
    }  # fmt: skip


def test_added_and_dropped_capabilities(engine: Engine) -> None:
    with_one = DEFAULT_CAPABILITIES | 1 << CAP_NET_ADMIN
    assert effective(engine, "--cap-add", "NET_ADMIN") == with_one
    assert effective(engine, "--cap-add", "cap_net_admin", "--cap-drop", "chown") == with_one & ~(1 << CAP_CHOWN)
    assert effective(engine, "--cap-drop", "ALL", "--cap-add", "SYS_TIME") == 1 << CAP_SYS_TIME
    host = int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")).split()[1], 16
    )
    assert effective(engine, "--cap-add", "ALL", "--cap-drop", "SYS_TIME") == host & ~(1 << CAP_SYS_TIME)


def test_a_capability_does_what_it_is_for(engine: Engine) -> None:
    add_link = ("busybox", "ip", "link", "set", "lo", "mtu", "1400")
    assert "Operation not permitted" in engine.docker("run", "--rm", *add_link, check=False).stderr
    engine.docker("run", "--rm", "--cap-add", "NET_ADMIN", *add_link)


def test_unknown_capability(engine: Engine) -> None:
    done = engine.docker("create", "--cap-add", "FLY", "busybox", check=False)
    assert 'invalid CapAdd: unknown capability: "CAP_FLY"' in done.stderr


def test_seccomp_is_on(engine: Engine) -> None:
    assert engine.out("run", "--rm", "busybox", "grep", "^Seccomp:", "/proc/self/status").split()[1] == "2"
    # a new namespace needs a capability that the profile ties clone and unshare to
    assert engine.docker("run", "--rm", "busybox", "unshare", "-U", "true", check=False).returncode != 0


def test_seccomp_unconfined(engine: Engine) -> None:
    options = ("--security-opt", "seccomp=unconfined")
    assert engine.out("run", "--rm", *options, "busybox", "grep", "^Seccomp:", "/proc/self/status").split()[1] == "0"
    engine.docker("run", "--rm", *options, "busybox", "unshare", "-U", "true")


def test_seccomp_profile_from_a_file(engine: Engine, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    options = ("--security-opt", f"seccomp={profile}")
    done = engine.docker("run", "--rm", *options, "busybox", "mkdir", "/made", check=False)
    assert "Operation not supported" in done.stderr
    engine.docker("run", "-d", "--name", "it", *options, "busybox", "sleep", "1000")
    assert "Operation not supported" in engine.docker("exec", "it", "mkdir", "/made", check=False).stderr


@pytest.mark.parametrize("profile", ["{", "[]", '{"defaultAction": "SCMP_ACT_PERHAPS"}'])
def test_broken_seccomp_profile(engine: Engine, tmp_path: Path, profile: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(profile)
    done = engine.docker("run", "--rm", "--security-opt", f"seccomp={file}", "busybox", "true", check=False)
    assert done.returncode != 0
    assert "seccomp" in done.stderr


def test_no_new_privileges(engine: Engine) -> None:
    script = ("busybox", "grep", "^NoNewPrivs", "/proc/self/status")
    assert engine.out("run", "--rm", *script).split()[1] == "0"
    assert engine.out("run", "--rm", "--security-opt", "no-new-privileges", *script).split()[1] == "1"
    assert engine.out("run", "--rm", "--security-opt", "no-new-privileges=false", *script).split()[1] == "0"


def test_no_new_privileges_hold_for_exec(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--security-opt", "no-new-privileges", "busybox", "sleep", "1000")
    assert engine.out("exec", "it", "grep", "^NoNewPrivs", "/proc/self/status").split()[1] == "1"


def test_apparmor_is_refused_where_there_is_none(engine: Engine) -> None:
    if Path("/sys/kernel/security/apparmor").exists():
        pytest.skip("this host has AppArmor")
    done = engine.docker("create", "--security-opt", "apparmor=my-profile", "busybox", check=False)
    assert "AppArmor is not supported on this host" in done.stderr
    engine.docker("create", "--security-opt", "apparmor=unconfined", "busybox")


def test_unknown_security_option(engine: Engine) -> None:
    done = engine.docker("create", "--security-opt", "magic=on", "busybox", check=False)
    assert "magic=on" in done.stderr
    assert done.returncode != 0


def test_selinux_labels_are_refused(engine: Engine) -> None:
    done = engine.docker("create", "--security-opt", "label=type:svirt_t", "busybox", check=False)
    assert "SELinux" in done.stderr
    engine.docker("create", "--security-opt", "label=disable", "busybox")


def test_masked_and_read_only_paths(engine: Engine) -> None:
    script = """
        cat /proc/kcore | wc -c; cat /proc/keys | wc -c; ls /sys/firmware | wc -l
        for f in /proc/sysrq-trigger /proc/sys/kernel/printk /sys/kernel/mm/ksm/run; do
            [ -e $f ] || continue; (echo 0 >$f) 2>/dev/null && echo wrote $f; done; true"""
    assert engine.out("run", "--rm", "busybox", "sh", "-c", script).split() == ["0", "0", "0"]


def test_system_paths_unconfined(engine: Engine) -> None:
    script = ("busybox", "sh", "-c", "grep -c ' /proc/' /proc/self/mounts")
    assert engine.docker("run", "--rm", *script, check=False).stdout.strip() != "0"
    assert engine.docker("run", "--rm", "--security-opt", "systempaths=unconfined", *script, check=False).stdout.strip() == "0"


def test_privileged(engine: Engine) -> None:
    script = (
        "mkdir /m && mount -t tmpfs t /m && grep -c ' /proc/' /proc/self/mounts;"
        " ls /dev/kmsg; grep ^Seccomp: /proc/self/status; grep ' /sys ' /proc/mounts"
    )
    done = engine.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", script, check=False).stdout.splitlines()
    assert done[:2] == ["0", "/dev/kmsg"]
    assert done[2].split()[1] == "0"
    assert "rw" in done[3].split()[3].split(",")
    host = int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")).split()[1], 16
    )
    assert effective(engine, "--privileged") == host


def test_unprivileged_cannot_mount(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", "mkdir /m && mount -t tmpfs t /m", check=False)
    assert done.returncode != 0


def test_devices_are_forbidden(engine: Engine) -> None:
    # CAP_MKNOD is among Docker's 14: it is the control group that says no
    script = "mknod /kmsg c 1 11 && cat </kmsg"
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert "Operation not permitted" in done.stderr


def test_default_devices(engine: Engine) -> None:
    names = {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
    assert set(engine.out("run", "--rm", "busybox", "ls", "/dev").split()) - {"core"} == names
    script = "echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c; echo x >/dev/full"
    done = engine.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert done.stdout.split() == ["4", "4"]
    assert "No space left on device" in done.stderr


def test_device(engine: Engine) -> None:
    script = "[ -c /dev/mine ] && stat -c %t:%T /dev/mine && true </dev/mine && echo opened"
    assert engine.out("run", "--rm", "--device", "/dev/fuse:/dev/mine", "busybox", "sh", "-c", script).split() == ["a:e5", "opened"]


def test_device_with_permissions(engine: Engine) -> None:
    script = "true </dev/fuse && echo read; (: >/dev/fuse) && echo wrote"
    done = engine.docker("run", "--rm", "--device", "/dev/fuse:/dev/fuse:r", "busybox", "sh", "-c", script, check=False)
    assert done.stdout.split() == ["read"]
    assert "Operation not permitted" in done.stderr


def test_device_cgroup_rule(engine: Engine) -> None:
    assert (
        engine.out(
            "run",
            "--rm",
            "--device-cgroup-rule",
            "c 10:229 r",
            "busybox",
            "sh",
            "-c",
            "mknod /fuse c 10 229; true </fuse && echo opened",
        )
        == "opened"
    )
    done = engine.docker("create", "--device-cgroup-rule", "c 10:229 q", "busybox", check=False)
    assert "invalid device cgroup" in done.stderr


def test_no_such_device(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--device", "/dev/nothing-like-it", "busybox", "true", check=False)
    assert 'error gathering device information while adding custom device "/dev/nothing-like-it"' in done.stderr
    assert done.returncode != 0


def test_gpus_are_refused(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--gpus", "all", "busybox", "true", check=False)
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.stderr


def test_sysctl(engine: Engine) -> None:
    options = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=77", "--sysctl", "kernel.msgmax=9000")
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"
    assert engine.out("run", "--rm", *options, "busybox", "sh", "-c", script).split() == ["77", "9000"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sysctl", "vm.swappiness=1"), "not allowed"),
        (("--sysctl", "net.ipv4.ip_forward=1", "--network", "host"), "not allowed"),
        (("--sysctl", "kernel.msgmax=9000", "--ipc", "host"), "not allowed"),
    ],
)
def test_forbidden_sysctl(engine: Engine, options: tuple[str, ...], message: str) -> None:
    done = engine.docker("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode != 0
    assert message in done.stderr


def namespace(engine: Engine, kind: str, *options: str) -> str:
    return engine.out("run", "--rm", *options, "busybox", "readlink", f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "mnt", "net"])
def test_own_namespaces(engine: Engine, kind: str) -> None:
    assert namespace(engine, kind) != os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("pid", ("--pid", "host")), ("ipc", ("--ipc", "host")), ("uts", ("--uts", "host")), ("net", ("--network", "host")),
        ("user", ("--userns", "host")), ("cgroup", ("--cgroupns", "host")),
    ],
)  # fmt: skip
def test_host_namespaces(engine: Engine, kind: str, options: tuple[str, ...]) -> None:
    assert namespace(engine, kind, *options) == os.readlink(f"/proc/self/ns/{kind}")


def test_private_cgroup_namespace(engine: Engine) -> None:
    script = ("busybox", "sh", "-c", "readlink /proc/self/ns/cgroup; cut -d: -f3 /proc/self/cgroup | sort -u")
    inside, *paths = engine.out("run", "--rm", "--cgroupns", "private", *script).splitlines()
    assert inside != os.readlink("/proc/self/ns/cgroup")
    assert "/" in paths


def test_another_containers_namespaces(engine: Engine) -> None:
    engine.docker(
        "run", "-d", "--name", "one", "--ipc", "shareable", "busybox", "sh", "-c", "echo shared >/dev/shm/file; exec sleep 1000"
    )
    pid = engine.inspect("one")["State"]["Pid"]
    for kind, option in (("pid", "--pid"), ("ipc", "--ipc"), ("net", "--network")):
        assert namespace(engine, kind, option, "container:one") == os.readlink(f"/proc/{pid}/ns/{kind}")
    assert "sleep 1000" in engine.out("run", "--rm", "--pid", "container:one", "busybox", "ps")
    assert engine.out("run", "--rm", "--ipc", "container:one", "busybox", "cat", "/dev/shm/file") == "shared"


def test_a_private_ipc_namespace_cannot_be_joined(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    done = engine.docker("run", "--rm", "--ipc", "container:one", "busybox", "true", check=False)
    assert "non-shareable IPC" in done.stderr


def test_ipc_none(engine: Engine) -> None:
    assert engine.out("run", "--rm", "--ipc", "none", "busybox", "sh", "-c", "grep -c /dev/shm /proc/mounts; true") == "0"


def test_the_host_is_reachable_with_its_pids(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "it", "--pid", "host", "busybox", "sh", "-c", "sleep 1001 & sleep 1001")
    pid = engine.inspect("it")["State"]["Pid"]
    assert engine.out("exec", "it", "cat", f"/proc/{pid}/comm") == "sleep"
    # nothing of it may be left without a namespace that takes its processes with it
    engine.docker("rm", "-f", "it")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pid", "magic"), "PID"),
        (("--ipc", "magic"), "IPC"),
        (("--uts", "magic"), "UTS"),
        (("--userns", "magic"), "serns"),
        (("--cgroupns", "magic"), "cgroup"),
        (("--runtime", "magic"), "unknown or invalid runtime name: magic"),
        (("--isolation", "hyperv"), "solation"),
        (("--storage-opt", "size=1G"), "--storage-opt"),
    ],
)
def test_modes_that_do_not_exist(engine: Engine, options: tuple[str, ...], message: str) -> None:
    done = engine.docker("create", *options, "busybox", check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_files_of_the_engine(engine: Engine) -> None:
    options = ("-h", "box", "--add-host", "db:192.0.2.7", "--add-host", "v6=2001:db8::7", "--add-host", "outside:host-gateway",
               "--dns", "192.0.2.53", "--dns-search", "example.test", "--dns-option", "ndots:3")  # fmt: skip
    engine.docker("run", "-d", "--name", "it", *options, "busybox", "sleep", "1000")
    address = engine.inspect("it")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    gateway = engine.inspect("it")["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    hosts = [line.split() for line in engine.out("exec", "it", "cat", "/etc/hosts").splitlines()]
    assert hosts == [
        ["127.0.0.1", "localhost"], ["::1", "localhost", "ip6-localhost", "ip6-loopback"], ["fe00::0", "ip6-localnet"],
        ["ff00::0", "ip6-mcastprefix"], ["ff02::1", "ip6-allnodes"], ["ff02::2", "ip6-allrouters"],
        ["192.0.2.7", "db"], ["2001:db8::7", "v6"], [gateway, "outside"], [address, "box"],
    ]  # fmt: skip
    resolver = [line for line in engine.out("exec", "it", "cat", "/etc/resolv.conf").splitlines() if line[:1] not in "#;"]
    assert resolver == ["nameserver 192.0.2.53", "search example.test", "options ndots:3"]
    assert engine.out("exec", "it", "cat", "/etc/hostname") == "box"


def test_files_of_the_engine_can_be_written(engine: Engine) -> None:
    engine.docker("run", "--name", "it", "busybox", "sh", "-c", "echo 192.0.2.9 own >>/etc/hosts")
    assert engine.docker("run", "--rm", "--read-only", "busybox", "sh", "-c", "echo x >>/etc/hosts", check=False).returncode != 0


@pytest.mark.parametrize("entry", ["no-address", "db:not-an-address"])
def test_bad_add_host(engine: Engine, entry: str) -> None:
    assert engine.docker("create", "--add-host", entry, "busybox", check=False).returncode != 0


def test_no_descriptor_of_the_engine_is_inherited(engine: Engine) -> None:
    assert engine.out("run", "--rm", "busybox", "ls", "/proc/self/fd").split()[:3] == ["0", "1", "2"]
    # ls itself holds the directory
    assert len(engine.out("run", "--rm", "busybox", "ls", "/proc/self/fd").split()) == 4

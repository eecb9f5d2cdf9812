"""From a container's configuration to the OCI runtime specification (runtime-spec, config.md, config-linux.md)."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from boxship.containers.config import ContainerConfig, HostConfig
from boxship.containers.model import Container
from boxship.errors import Invalid, Unsupported
from boxship.oci.image_config import Healthcheck
from boxship.runtime import capabilities
from boxship.runtime.cgroups import Cgroups

Spec = dict[str, Any]

DEFAULT_SHM_SIZE = 64 << 20
_CPU_PERIOD = 100_000

MASKED = [
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

_NAMESPACED_SYSCTLS = frozenset(
    {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
     "kernel.shmmni", "kernel.shm_rmid_forced"}
)  # fmt: skip
_DEVICE_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}

_DEVICE_RULES: list[Spec] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None))
    ),
]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the specification needs to know of the host and of other containers."""

    cgroups: Cgroups
    cgroup: str
    pid_of: Callable[[str], int]
    files: str
    mounts: list[Spec]
    no_new_privileges: bool = False


def build(container: Container, around: Surroundings) -> Spec:
    """The whole specification of a container; raises `Invalid`, `NotFound`, `Unsupported`."""
    config, host = container.config, container.host
    namespaces = _namespaces(host, around)
    spec: Spec = {
        "process": process(
            config, host, [container.path, *container.args], config.env or [], config.user, config.working_dir,
            tty=config.tty, no_new_privileges=around.no_new_privileges,
        ),
        "root": {"readonly": host.readonly_rootfs},
        "hostname": config.hostname if host.uts_mode != "host" else "",
        "domainname": config.domainname if host.uts_mode != "host" else "",
        "mounts": _mounts(container, around),
        "linux": {
            "namespaces": namespaces,
            "resources": resources(host),
            "devices": _devices(host),
            "sysctl": _sysctls(host),
            "maskedPaths": _unless_privileged(host, host.masked_paths, MASKED),
            "readonlyPaths": _unless_privileged(host, host.readonly_paths, READ_ONLY),
        },
    }  # fmt: skip
    return spec


def _unless_privileged(host: HostConfig, own: list[str] | None, default: list[str]) -> list[str]:
    if own is not None:
        return own
    return [] if host.privileged or "systempaths=unconfined" in (host.security_opt or []) else default


def process(
    config: ContainerConfig, host: HostConfig, arguments: list[str], environment: list[str], user: str, directory: str,
    *, tty: bool, privileged: bool = False, no_new_privileges: bool = False,
) -> Spec:  # fmt: skip
    """An OCI process; its user is resolved by the runtime, in the container's own files."""
    held = effective_capabilities(host, privileged=privileged)
    size = host.console_size or [0, 0]
    return {
        "args": arguments,
        "env": environment,
        "cwd": directory or "/",
        "terminal": tty,
        "consoleSize": {"height": size[0], "width": size[1]},
        "user": {
            "username": user,
            "additionalGids": host.group_add or [],
            **({} if host.umask is None else {"umask": host.umask}),
        },
        "capabilities": {"bounding": held, "effective": held, "permitted": held},
        "noNewPrivileges": no_new_privileges or _no_new_privileges(host),
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": _limits(host),
    }


def security_option(text: str) -> tuple[str, str]:
    """Name and value of a `--security-opt`; the colon is the older of the two separators that Docker takes."""
    name, _, value = text.partition("=")
    if ":" in name:
        name, _, value = text.partition(":")
    return name, value


def _no_new_privileges(host: HostConfig) -> bool:
    for option in host.security_opt or []:
        name, value = security_option(option)
        if name == "no-new-privileges":
            return value in ("", "true", "1")
    return False


def effective_capabilities(host: HostConfig, *, privileged: bool = False) -> list[str]:
    """Docker's set, with what was added and dropped; raises `Invalid` for an unknown one."""
    bounding = capabilities.bounding_of_host()
    everything = [name for number, name in enumerate(capabilities.NAMES) if bounding >> number & 1]
    if host.privileged or privileged:
        return everything
    held = dict.fromkeys(capabilities.DEFAULT)
    dropped = [_capability(name, "CapDrop") for name in host.cap_drop or []]
    added = [_capability(name, "CapAdd") for name in host.cap_add or []]
    if "ALL" in dropped:
        held = {}
    if "ALL" in added:
        held = dict.fromkeys(everything)
    for name in dropped:
        held.pop(name, None)
    for name in added:
        if name != "ALL":
            held[name] = None
    return list(held)


def _capability(name: str, field: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in capabilities.NAMES:
        raise Invalid(f'invalid {field}: unknown capability: "{full}"')
    return full


def _limits(host: HostConfig) -> list[Spec]:
    return [{"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft, "hard": limit.hard} for limit in host.ulimits or []]


def _namespaces(host: HostConfig, around: Surroundings) -> list[Spec]:
    if host.userns_mode not in ("", "host"):
        raise Unsupported(f"--userns={host.userns_mode} is not supported", hint="only host")
    found: list[Spec] = [{"type": "mount"}]

    def joined(kind: str, mode: str, option: str) -> None:
        if mode.startswith("container:"):
            found.append({"type": kind, "path": f"/proc/{around.pid_of(mode[10:])}/ns/{_FILES.get(kind, kind)}"})
        elif mode in ("", "private", "shareable", "none"):
            found.append({"type": kind})
        elif mode != "host":
            raise Invalid(f"invalid {option} mode: {mode}")

    joined("pid", host.pid_mode, "PID")
    joined("ipc", host.ipc_mode, "IPC")
    if host.uts_mode not in ("", "host"):
        raise Invalid(f"invalid UTS mode: {host.uts_mode}")
    joined("uts", host.uts_mode, "UTS")
    mode = host.network_mode
    if mode.startswith("container:"):
        found.append({"type": "network", "path": f"/proc/{around.pid_of(mode[10:])}/ns/net"})
    if host.cgroupns_mode not in ("", "host", "private"):
        raise Invalid(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.cgroupns_mode == "private" or (not host.cgroupns_mode and around.cgroups.version == 2 and not host.privileged):
        found.append({"type": "cgroup"})
    return found


_FILES = {"network": "net"}


def _mounts(container: Container, around: Surroundings) -> list[Spec]:
    host = container.host
    access = "rw" if host.privileged else "ro"
    mounts: list[Spec] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", access]},
    ]  # fmt: skip
    mounts += _cgroup_mounts(host, around, access)
    # always that of the IPC namespace in which the container is
    mounts.append({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                   "options": ["nosuid", "noexec", "nodev"]})  # fmt: skip
    if host.ipc_mode == "host":
        mounts.append({"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["rbind"]})
    elif host.ipc_mode.startswith("container:"):
        pid = around.pid_of(host.ipc_mode[10:])
        mounts.append({"destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["bind"],
                       "namespace": f"/proc/{pid}/ns/mnt"})  # fmt: skip
    elif host.ipc_mode != "none":
        size = host.shm_size or DEFAULT_SHM_SIZE
        mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                       "options": ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"]})  # fmt: skip
    mine = {point.destination for point in container.mounts}
    for name in ("resolv.conf", "hostname", "hosts"):
        path = os.path.join(around.files, name)
        if f"/etc/{name}" not in mine and os.path.exists(path):
            options = ["bind", "rprivate", *(["ro"] if host.readonly_rootfs else [])]
            mounts.append({"destination": f"/etc/{name}", "type": "bind", "source": path, "options": options})
    own = {str(entry["destination"]) for entry in around.mounts}
    return [entry for entry in mounts if entry["destination"] not in own] + around.mounts


def _cgroup_mounts(host: HostConfig, around: Surroundings, access: str) -> list[Spec]:
    options = ["nosuid", "noexec", "nodev", access]
    if around.cgroups.version == 2:
        if host.cgroupns_mode == "host":
            return [
                {
                    "destination": "/sys/fs/cgroup",
                    "type": "bind",
                    "source": "/sys/fs/cgroup",
                    "options": ["rbind", *options],
                }
            ]
        return [{"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": options}]
    mounts: list[Spec] = [
        {"destination": "/sys/fs/cgroup", "type": "tmpfs", "source": "tmpfs",
         "options": [*options, "mode=755"]}
    ]  # fmt: skip
    for name, directory in around.cgroups.mounts(around.cgroup):
        mounts.append({"destination": f"/sys/fs/cgroup/{name}", "type": "bind", "source": str(directory),
                       "options": ["bind", *options]})  # fmt: skip
    return mounts


def resources(host: HostConfig) -> Spec:
    """OCI `LinuxResources`; raises `Invalid` in Docker's words."""
    found: Spec = {}
    memory: Spec = {}
    if host.memory:
        memory["limit"] = host.memory
        # Docker's rule: without a figure of its own, as much swap as memory
        memory["swap"] = host.memory_swap if host.memory_swap else 2 * host.memory
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    if host.kernel_memory_tcp:
        memory["kernelTCP"] = host.kernel_memory_tcp
    if memory:
        found["memory"] = memory
    cpu: Spec = {}
    if host.nano_cpus:
        cpu["period"], cpu["quota"] = _CPU_PERIOD, host.nano_cpus * _CPU_PERIOD // 1_000_000_000
    for value, key in (
        (host.cpu_shares, "shares"), (host.cpu_period, "period"), (host.cpu_quota, "quota"),
        (host.cpuset_cpus, "cpus"), (host.cpuset_mems, "mems"), (host.cpu_realtime_period, "realtimePeriod"),
        (host.cpu_realtime_runtime, "realtimeRuntime"),
    ):  # fmt: skip
        if value:
            cpu[key] = value
    if cpu:
        found["cpu"] = cpu
    if host.pids_limit:
        found["pids"] = {"limit": host.pids_limit}
    block = _block(host)
    if block:
        found["blockIO"] = block
    found["devices"] = [{"allow": True, "access": "rwm"}] if host.privileged else _device_rules(host)
    return found


def _block(host: HostConfig) -> Spec:
    found: Spec = {}
    if host.blkio_weight:
        found["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        found["weightDevice"] = [{**_numbers(d.path), "weight": d.weight} for d in host.blkio_weight_device]
    for devices, key in (
        (host.blkio_device_read_bps, "throttleReadBpsDevice"),
        (host.blkio_device_write_bps, "throttleWriteBpsDevice"),
        (host.blkio_device_read_iops, "throttleReadIOPSDevice"),
        (host.blkio_device_write_iops, "throttleWriteIOPSDevice"),
    ):
        if devices:
            found[key] = [{**_numbers(d.path), "rate": d.rate} for d in devices]
    return found


def _numbers(path: str) -> Spec:
    try:
        device = os.stat(path).st_rdev
    except OSError as error:
        raise Invalid(f"{path}: {(error.strerror or '').lower()}") from error
    return {"major": os.major(device), "minor": os.minor(device)}


def _device_rules(host: HostConfig) -> list[Spec]:
    rules = list(_DEVICE_RULES)
    for mapping in host.devices or []:
        for device in _expand(mapping.path_on_host, mapping.path_in_container):
            rules.append({"allow": True, "type": device["type"], "major": device["major"], "minor": device["minor"],
                          "access": mapping.cgroup_permissions or "rwm"})  # fmt: skip
    for text in host.device_cgroup_rules or []:
        fields = text.split()
        if len(fields) != 3 or fields[0] not in "abc" or ":" not in fields[1] or set(fields[2]) - set("rwm"):
            raise Invalid(f"invalid device cgroup rule format: '{text}'")
        major, minor = (None if part == "*" else int(part) for part in fields[1].split(":"))
        rules.append({"allow": True, "type": fields[0], "major": major, "minor": minor, "access": fields[2]})
    return rules


def _devices(host: HostConfig) -> list[Spec]:
    if host.privileged:
        found: list[Spec] = []
        for directory, names, files in os.walk("/dev"):
            names[:] = [name for name in names if os.path.join(directory, name) not in ("/dev/pts", "/dev/shm", "/dev/mqueue")]
            for name in files:
                path = os.path.join(directory, name)
                if path not in ("/dev/console", "/dev/ptmx") and not os.path.islink(path):
                    found += _expand(path, path, missing_ok=True)
        return found
    return [device for mapping in host.devices or [] for device in _expand(mapping.path_on_host, mapping.path_in_container)]


def _expand(source: str, target: str, *, missing_ok: bool = False) -> list[Spec]:
    """A device, or every device below a directory."""
    target = target or source
    try:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            return [
                d for name in sorted(os.listdir(source)) for d in _expand(f"{source}/{name}", f"{target}/{name}", missing_ok=True)
            ]
    except OSError as error:
        if missing_ok:
            return []
        raise Invalid(
            f'error gathering device information while adding custom device "{source}": {(error.strerror or "").lower()}'
        ) from error
    kind = _DEVICE_KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        if missing_ok:
            return []
        raise Invalid(f'error gathering device information while adding custom device "{source}": not a device node')
    return [{"path": target, "type": kind, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev),
             "fileMode": stat.S_IMODE(status.st_mode), "uid": status.st_uid, "gid": status.st_gid}]  # fmt: skip


def _sysctls(host: HostConfig) -> dict[str, str]:
    for name in host.sysctls or {}:
        if name in _NAMESPACED_SYSCTLS or name.startswith("fs.mqueue."):
            if host.ipc_mode == "host":
                raise Invalid(f"sysctl {name} is not allowed in the host's IPC namespace")
        elif name.startswith("net."):
            if host.network_mode == "host":
                raise Invalid(f"sysctl {name} is not allowed in the host's network namespace")
        else:
            raise Invalid(f"sysctl '{name}' is not allowed")
    return dict(host.sysctls or {})


def validate(config: ContainerConfig, host: HostConfig, log_drivers: frozenset[str]) -> None:
    """Refuse what cannot be, before anything is made; raises `Invalid`, `Unsupported`, `NotFound`."""
    effective_capabilities(host)
    _sysctls(host)
    _device_rules(host)
    for option, unsupported in (
        ("--isolation", host.isolation not in ("", "default")),
        ("--storage-opt", host.storage_opt),
        ("--cpu-count", host.cpu_count),
        ("--cpu-percent", host.cpu_percent),
        ("--io-maxiops", host.io_maximum_iops),
        ("--io-maxbandwidth", host.io_maximum_bandwidth),
        ("--volume-driver", host.volume_driver not in ("", "local")),
    ):
        if unsupported:
            raise Unsupported(f"{option} is not supported")
    if host.device_requests:
        wanted = host.device_requests[0]
        kinds = "[" + " ".join("[" + " ".join(group) + "]" for group in wanted.capabilities or []) + "]"
        raise Invalid(f'could not select device driver "{wanted.driver}" with capabilities: {kinds}')
    if host.runtime not in ("", "boxship", "runc", "io.containerd.runc.v2"):
        raise Invalid(f"unknown or invalid runtime name: {host.runtime}")
    if host.memory and host.memory < 6 << 20:
        raise Invalid("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < host.memory_swap < host.memory:
        raise Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_reservation and host.memory and host.memory_reservation > host.memory:
        raise Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise Invalid(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    _check_cpus(host)
    _check_modes(host)
    if config.healthcheck is not None:
        _check_health(config.healthcheck)
    available = os.cpu_count() or 1
    if host.nano_cpus < 0 or host.nano_cpus > available * 1_000_000_000:
        raise Invalid(f"range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if host.oom_score_adj and not -1000 <= host.oom_score_adj <= 1000:
        raise Invalid(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.umask is not None and not 0 <= host.umask <= 0o777:
        raise Invalid(f"Invalid value {host.umask}, range for umask is [0, 511] (0777)")
    if host.shm_size < 0:
        raise Invalid("SHM size can not be less than 0")
    for limit in host.ulimits or []:
        if not hasattr(resource, f"RLIMIT_{limit.name.upper()}") and limit.name != "locks":
            raise Invalid(f"invalid ulimit type: {limit.name}")
        if 0 <= limit.hard < limit.soft:
            raise Invalid(f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}")
    policy = host.restart_policy
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise Invalid(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise Invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if host.auto_remove and policy.name not in ("", "no"):
        raise Invalid("can't create 'AutoRemove' container with restart policy")
    if host.log_config.type and host.log_config.type not in log_drivers:
        raise NotFoundDriver(f"logger: no log driver named '{host.log_config.type}' is registered")
    for option in host.security_opt or []:
        _check_security_option(option)
    if host.network_mode.startswith("container:") and (host.port_bindings or config.mac_address):
        raise Invalid("conflicting options: port publishing and the container type network mode")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise Invalid(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")


def _check_cpus(host: HostConfig) -> None:
    if 0 < host.cpu_quota < 1000:
        raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise Invalid("Range of blkio weight is from 10 to 1000")
    for text, name, what, path in (
        (host.cpuset_cpus, "cpus", "CPUs", "/sys/devices/system/cpu/online"),
        (host.cpuset_mems, "mems", "memory nodes", "/sys/devices/system/node/online"),
    ):
        wanted = _numbers_in(text)
        if wanted is None:
            raise Invalid(f"Invalid value {text} for cpuset {name}")
        try:
            with open(path) as file:
                online = file.read().strip()
        except OSError:
            online = "0"  # a kernel without NUMA has one node and no file
        if not wanted <= (_numbers_in(online) or set()):
            raise Invalid(f"Requested {what} are not available - requested {text}, available: {online}")


def _numbers_in(text: str) -> set[int] | None:
    """The numbers of a list such as `0-2,5` (cpuset(7)); None where it is none."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            return None
        found.update(range(int(first), min(int(last or first), 1 << 16) + 1))
    return found


def _check_health(check: Healthcheck) -> None:
    for name, nanoseconds in (
        ("Interval", check.interval), ("Timeout", check.timeout), ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):  # fmt: skip
        if nanoseconds and nanoseconds < 1_000_000:
            raise Invalid(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise Invalid("Retries in Healthcheck cannot be negative")


def _check_modes(host: HostConfig) -> None:
    for mode, name, known in (
        (host.pid_mode, "PID", ("", "host")),
        (host.ipc_mode, "IPC", ("", "none", "private", "shareable", "host")),
        (host.uts_mode, "UTS", ("", "host")),
        (host.cgroupns_mode, "cgroup namespace", ("", "private", "host")),
    ):
        if mode not in known and not (name in ("PID", "IPC") and mode.startswith("container:")):
            raise Invalid(f"invalid {name} mode: {mode}")
    if host.userns_mode not in ("", "host"):
        raise Unsupported(f"--userns={host.userns_mode} is not supported", hint="only host")


class NotFoundDriver(Invalid):
    """Raised for a log driver that does not exist."""


def _check_security_option(option: str) -> None:
    name, value = security_option(option)
    if name in ("no-new-privileges", "seccomp", "systempaths"):
        return
    if name == "label":
        if value != "disable":
            raise Unsupported(f"--security-opt {option} is not supported: no SELinux labels are set")
        return
    if name == "apparmor":
        if value not in ("unconfined", "") and not os.path.exists("/sys/kernel/security/apparmor"):
            raise Invalid("AppArmor is not supported on this host, but the profile was requested: " + value)
        if value not in ("unconfined", ""):
            raise Unsupported("--security-opt apparmor profiles are not supported")
        return
    raise Invalid(f"invalid --security-opt 2: {option!r}")

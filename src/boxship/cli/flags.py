"""The options that `run` and `create` share, and what they ask of the engine."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from boxship.cli.formatting import parse_size
from boxship.errors import Invalid

Command = Callable[..., Any]
Document = dict[str, Any]

_MANY: tuple[tuple[tuple[str, ...], str], ...] = (
    (("-e", "--env"), "Set an environment variable."),
    (("--env-file",), "Read environment variables from a file."),
    (("-l", "--label"), "Set a label."),
    (("--label-file",), "Read labels from a file."),
    (("-v", "--volume"), "Bind a path or a volume: source:target[:options]."),
    (("--mount",), "Mount a bind, volume or tmpfs: type=…,source=…,target=…."),
    (("--tmpfs",), "Mount a tmpfs."),
    (("--volumes-from",), "Mount the volumes of another container."),
    (("-p", "--publish"), "Publish a port: [[ip:]host:]container[/protocol]."),
    (("--expose",), "Expose a port."),
    (("--network", "--net"), "Connect to a network."),
    (("--network-alias",), "Another name on the network."),
    (("--link",), "Link to another container."),
    (("--add-host",), "Add a name and its address: host:ip."),
    (("--dns",), "A name server."),
    (("--dns-search",), "A search domain."),
    (("--dns-option",), "An option of the resolver."),
    (("--cap-add",), "Add a capability."),
    (("--cap-drop",), "Drop a capability."),
    (("--device",), "Add a device of the host."),
    (("--security-opt",), "A security option."),
    (("--sysctl",), "Set a kernel parameter."),
    (("--group-add",), "Add a group to the process."),
    (("--ulimit",), "Set a limit: name=soft[:hard]."),
    (("--log-opt",), "An option of the log driver."),
)
_TEXTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--name",), "The container's name."),
    (("-w", "--workdir"), "The working directory."),
    (("-u", "--user"), "The user: name or number, and group."),
    (("--entrypoint",), "Replace the image's entry point."),
    (("-h", "--hostname"), "The host name."),
    (("--domainname",), "The domain name."),
    (("--ip",), "An IPv4 address on the network."),
    (("--ip6",), "An IPv6 address on the network."),
    (("--mac-address",), "The MAC address."),
    (("--restart",), "When to start again: no, on-failure[:n], always, unless-stopped."),
    (("--stop-signal",), "The signal that stops it."),
    (("-m", "--memory"), "The most memory."),
    (("--memory-swap",), "The most memory and swap together; -1 for any."),
    (("--memory-reservation",), "Memory that it keeps under pressure."),
    (("--cpus",), "How many CPUs' time."),
    (("--cpuset-cpus",), "On which CPUs it may run."),
    (("--cpuset-mems",), "On which memory nodes."),
    (("--shm-size",), "The size of /dev/shm."),
    (("--ipc",), "The IPC namespace."),
    (("--pid",), "The PID namespace."),
    (("--uts",), "The UTS namespace."),
    (("--userns",), "The user namespace (host)."),
    (("--cgroupns",), "The cgroup namespace: host or private."),
    (("--cgroup-parent",), "The parent control group."),
    (("--log-driver",), "json-file, local or none."),
    (("--cidfile",), "Write the container's id to a file."),
    (("--platform",), "The platform of the image."),
    (("--runtime",), "The runtime."),
    (("--detach-keys",), "The keys that detach."),
    (("--health-cmd",), "How to check the health."),
    (("--health-interval",), "Between checks."),
    (("--health-timeout",), "How long a check may take."),
    (("--health-start-period",), "How long it may take to start."),
)
_NUMBERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--stop-timeout",), "Seconds until it is killed."),
    (("-c", "--cpu-shares"), "Its weight for CPU time."),
    (("--cpu-period",), "The period of its quota, in microseconds."),
    (("--cpu-quota",), "CPU time in each period, in microseconds."),
    (("--pids-limit",), "The most processes."),
    (("--oom-score-adj",), "How likely it is killed when memory runs out."),
    (("--health-retries",), "Failures until it is unhealthy."),
)
_SWITCHES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("-i", "--interactive"), "Keep stdin open."),
    (("-t", "--tty"), "Give it a terminal."),
    (("--rm",), "Remove it when it ends."),
    (("--read-only",), "Mount its root read-only."),
    (("--init",), "Run an init that reaps processes."),
    (("-P", "--publish-all"), "Publish every exposed port."),
    (("--privileged",), "Give it everything."),
    (("--no-healthcheck",), "Do not check its health."),
    (("--oom-kill-disable",), "Do not kill it when memory runs out."),
)


def container_options(command: Command) -> Command:
    """Add them to a command."""
    for names, text in reversed(_SWITCHES):
        command = click.option(*names, is_flag=True, help=text)(command)
    for names, text in reversed(_NUMBERS):
        command = click.option(*names, type=int, help=text)(command)
    for names, text in reversed(_TEXTS):
        command = click.option(*names, help=text)(command)
    for names, text in reversed(_MANY):
        command = click.option(*names, multiple=True, help=text)(command)
    return click.option("--pull", type=click.Choice(["always", "missing", "never"]), default="missing",
                           help="When to pull the image.")(command)  # fmt: skip


def request_of(image: str, arguments: Sequence[str], given: Document, *, detached: bool) -> Document:
    """The body of `POST /containers/create`; raises `Invalid` that names the option."""
    interactive, terminal = given["interactive"], given["tty"]
    exposed, bindings = _ports(given["publish"], given["expose"])
    binds = [_bind(text) for text in given["volume"]]
    networks = list(given["network"]) or ["default"]
    config: Document = {
        "Image": image,
        "Cmd": list(arguments) or None,
        "Hostname": given["hostname"] or "",
        "Domainname": given["domainname"] or "",
        "User": given["user"] or "",
        "WorkingDir": given["workdir"] or "",
        "Env": environment(given["env"], given["env_file"]) or None,
        "Labels": _labels(given["label"], given["label_file"]),
        "ExposedPorts": exposed or None,
        "Volumes": {bind: {} for bind in binds if ":" not in bind} or None,
        "AttachStdin": interactive and not detached,
        "AttachStdout": not detached,
        "AttachStderr": not detached,
        "Tty": terminal,
        "OpenStdin": interactive,
        "StdinOnce": interactive and not detached,
        "StopSignal": given["stop_signal"] or "",
        "StopTimeout": given["stop_timeout"],
        "Healthcheck": _health(given),
    }
    if given["entrypoint"] is not None:
        config["Entrypoint"] = [given["entrypoint"]]
    host: Document = {
        "Binds": [bind for bind in binds if ":" in bind] or None,
        "Mounts": [_mount(text) for text in given["mount"]] or None,
        "Tmpfs": dict(text.partition(":")[::2] for text in given["tmpfs"]) or None,
        "VolumesFrom": list(given["volumes_from"]) or None,
        "ContainerIDFile": given["cidfile"] or "",
        "NetworkMode": _network_name(networks[0]),
        "PortBindings": bindings or None,
        "PublishAllPorts": given["publish_all"],
        "RestartPolicy": _restart(given["restart"] or ""),
        "AutoRemove": given["rm"],
        "CapAdd": list(given["cap_add"]) or None,
        "CapDrop": list(given["cap_drop"]) or None,
        "Dns": list(given["dns"]) or None,
        "DnsSearch": list(given["dns_search"]) or None,
        "DnsOptions": list(given["dns_option"]) or None,
        "ExtraHosts": list(given["add_host"]) or None,
        "GroupAdd": list(given["group_add"]) or None,
        "Links": list(given["link"]) or None,
        "IpcMode": given["ipc"] or "",
        "PidMode": given["pid"] or "",
        "UTSMode": given["uts"] or "",
        "UsernsMode": given["userns"] or "",
        "CgroupnsMode": given["cgroupns"] or "",
        "CgroupParent": given["cgroup_parent"] or "",
        "Privileged": given["privileged"],
        "ReadonlyRootfs": given["read_only"],
        "Init": True if given["init"] else None,
        "OomScoreAdj": given["oom_score_adj"] or 0,
        "OomKillDisable": True if given["oom_kill_disable"] else None,
        "SecurityOpt": [_security(text) for text in given["security_opt"]] or None,
        "Sysctls": _pairs("--sysctl", given["sysctl"]) or None,
        "ShmSize": parse_size(given["shm_size"]) if given["shm_size"] else 0,
        "Memory": parse_size(given["memory"]) if given["memory"] else 0,
        "MemorySwap": parse_size(given["memory_swap"]) if given["memory_swap"] else 0,
        "MemoryReservation": parse_size(given["memory_reservation"]) if given["memory_reservation"] else 0,
        "NanoCpus": _cpus(given["cpus"]) if given["cpus"] else 0,
        "CpuShares": given["cpu_shares"] or 0,
        "CpuPeriod": given["cpu_period"] or 0,
        "CpuQuota": given["cpu_quota"] or 0,
        "CpusetCpus": given["cpuset_cpus"] or "",
        "CpusetMems": given["cpuset_mems"] or "",
        "PidsLimit": given["pids_limit"],
        "Ulimits": [ulimit(text) for text in given["ulimit"]] or None,
        "Devices": [_device(text) for text in given["device"]] or None,
        "LogConfig": {"Type": given["log_driver"] or "", "Config": _pairs("--log-opt", given["log_opt"])},
        "Runtime": given["runtime"] or "",
    }
    if terminal:
        from boxship.cli.stdio import terminal_size

        columns, rows = terminal_size()
        host["ConsoleSize"] = [rows, columns]
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": _endpoints(networks, given)}}


def _network_name(text: str) -> str:
    return dict(part.partition("=")[::2] for part in text.split(",")).get("name", text) if "=" in text else text


def _endpoints(networks: Sequence[str], given: Document) -> Document:
    found: Document = {}
    for index, text in enumerate(networks):
        name = _network_name(text)
        endpoint: Document = {}
        if index == 0:
            addresses = {"IPv4Address": given["ip"] or "", "IPv6Address": given["ip6"] or ""}
            if any(addresses.values()):
                endpoint["IPAMConfig"] = addresses
            if given["network_alias"]:
                endpoint["Aliases"] = list(given["network_alias"])
            if given["mac_address"]:
                endpoint["MacAddress"] = given["mac_address"]
        found[name] = endpoint
    return found if len(networks) > 1 or any(found.values()) else {}


def environment(values: Sequence[str], files: Sequence[str]) -> list[str]:
    """`-e` and `--env-file`: a name alone takes its value from our own environment."""
    lines: list[str] = []
    for file in files:
        try:
            text = Path(file).read_text()
        except OSError as error:
            raise Invalid(f"open {file}: {(error.strerror or '').lower()}") from error
        for line in text.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                lines.append(line.lstrip())
    found = []
    for line in [*lines, *values]:
        name, separator, _ = line.partition("=")
        if not name or re.search(r"\s", name):
            raise Invalid(f"invalid environment variable: {line!r}")
        if separator:
            found.append(line)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def _labels(values: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    lines = [line for file in files for line in Path(file).read_text().splitlines() if line.strip() and line[0] != "#"]
    return dict(text.partition("=")[::2] for text in [*lines, *values])


def _pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise Invalid(f"invalid value for {option}: {value!r}", hint="use name=value")
    return dict(value.partition("=")[::2] for value in values)


def _ports(published: Sequence[str], exposed: Sequence[str]) -> tuple[Document, dict[str, list[dict[str, str]]]]:
    ports: Document = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in exposed:
        port, _, protocol = text.partition("/")
        for number in _range(port, text):
            ports[f"{number}/{protocol or 'tcp'}"] = {}
    for text in published:
        rest, _, protocol = text.partition("/")
        address, host, inside = _split_port(rest)
        targets = _range(inside, text)
        if host and len(_range(host, text)) == len(targets):
            hosts = [str(number) for number in _range(host, text)]
        elif host and len(targets) == 1:
            hosts = [host]
        elif host:
            raise Invalid(f"invalid ranges specified for container and host Ports: {text}")
        else:
            hosts = [""] * len(targets)
        for target, own in zip(targets, hosts, strict=True):
            key = f"{target}/{(protocol or 'tcp').lower()}"
            ports[key] = {}
            bindings.setdefault(key, []).append({"HostIp": address, "HostPort": own})
    return ports, bindings


def _split_port(text: str) -> tuple[str, str, str]:
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        host, _, inside = rest.lstrip(":").rpartition(":")
        return address, host, inside
    parts = text.split(":")
    if len(parts) == 1:
        return "", "", parts[0]
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()) or not 0 < int(first) <= int(last or first) < 65536:
        raise Invalid(f"invalid containerPort: {whole}")
    return list(range(int(first), int(last or first) + 1))


def _bind(text: str) -> str:
    """`-v`: a source with a dot in front is a path of this directory."""
    source, separator, rest = text.partition(":")
    if separator and source.startswith((".", "~")):
        source = str(Path(source).expanduser().resolve())
    return f"{source}{separator}{rest}"


def _mount(text: str) -> Document:
    found: Document = {"Type": "volume"}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        name = name.lower()
        truth = not separator or value.lower() in ("true", "1")
        match name:
            case "type":
                found["Type"] = value
            case "source" | "src":
                path = value.startswith(".") and found["Type"] == "bind"
                found["Source"] = str(Path(value).resolve()) if path else value
            case "target" | "dst" | "destination":
                found["Target"] = value
            case "readonly" | "ro":
                found["ReadOnly"] = truth
            case "bind-propagation":
                found.setdefault("BindOptions", {})["Propagation"] = value
            case "bind-nonrecursive":
                found.setdefault("BindOptions", {})["NonRecursive"] = truth
            case "bind-create-src":
                found.setdefault("BindOptions", {})["CreateMountpoint"] = truth
            case "volume-nocopy":
                found.setdefault("VolumeOptions", {})["NoCopy"] = truth
            case "volume-subpath":
                found.setdefault("VolumeOptions", {})["Subpath"] = value
            case "volume-label":
                key, _, label = value.partition("=")
                found.setdefault("VolumeOptions", {}).setdefault("Labels", {})[key] = label
            case "volume-driver":
                found.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value
            case "volume-opt":
                key, _, option = value.partition("=")
                driver = found.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
                driver.setdefault("Options", {})[key] = option
            case "tmpfs-size":
                found.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_size(value)
            case "tmpfs-mode":
                found.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
            case _:
                raise Invalid(f"unexpected key '{name}' in '{part}'")
    if not found.get("Target"):
        raise Invalid(f"invalid argument {text!r} for --mount: target is required")
    return found


def _restart(text: str) -> Document:
    name, _, count = text.partition(":")
    if count and not count.isdigit():
        raise Invalid(f"invalid restart policy format: maximum retry count must be a number, not {count!r}")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _security(text: str) -> str:
    """A seccomp profile's file is read here: the engine gets its text."""
    name, separator, value = text.partition("=" if "=" in text else ":")
    if name == "seccomp" and value not in ("unconfined", "builtin"):
        try:
            return f"seccomp={json.dumps(json.loads(Path(value).read_text()))}"
        except (OSError, ValueError) as error:
            raise Invalid(f"opening seccomp profile ({value}) failed: {error}") from error
    return f"{name}={value}" if separator else text


def _device(text: str) -> Document:
    parts = text.split(":")
    permissions = "rwm"
    if len(parts) > 1 and re.fullmatch("[rwm]+", parts[-1]):
        permissions = parts.pop()
    return {"PathOnHost": parts[0], "PathInContainer": parts[1] if len(parts) > 1 else posixpath.normpath(parts[0]),
            "CgroupPermissions": permissions}  # fmt: skip


def ulimit(text: str) -> Document:
    """`nofile=1024:2048`; raises `Invalid`."""
    match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", text)
    if match is None:
        raise Invalid(f"invalid ulimit argument: {text}", hint="use name=soft[:hard]")
    return {"Name": match[1], "Soft": int(match[2]), "Hard": int(match[3] or match[2])}


def _cpus(text: str) -> int:
    try:
        return round(float(text) * 1e9)
    except ValueError:
        raise Invalid(f"invalid value {text!r} for --cpus: expected a number such as 1.5") from None


def _health(given: Document) -> Document | None:
    if given["no_healthcheck"]:
        return {"Test": ["NONE"]}
    fields = {"Interval": "health_interval", "Timeout": "health_timeout", "StartPeriod": "health_start_period"}
    found: Document = {name: nanoseconds(given[option]) for name, option in fields.items() if given[option]}
    if given["health_retries"]:
        found["Retries"] = given["health_retries"]
    if given["health_cmd"]:
        found["Test"] = ["CMD-SHELL", given["health_cmd"]]
    return found or None


def nanoseconds(text: str) -> int:
    """Of a duration such as `1m30s`; raises `Invalid`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|ns|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Invalid(f"invalid duration {text!r}", hint="such as 30s or 1m30s")
    units = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
    return int(sum(float(number) * units[unit] for number, unit in parts))

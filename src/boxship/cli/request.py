"""What `run` and `create` ask of the engine: the body of `POST /containers/create`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from boxship.cli.mounts import device, mount, tmpfs, volumes
from boxship.cli.ports import ports
from boxship.cli.values import (
    csv_fields,
    environment,
    labels,
    nano_cpus,
    nanoseconds,
    pairs,
    parse_size,
    restart_policy,
    ulimit,
)
from boxship.errors import Invalid

Document = dict[str, Any]

_STREAMS = ("stdin", "stdout", "stderr")


def request_of(image: str, arguments: Sequence[str], given: Document, *, detached: bool) -> Document:
    """The body for these options; raises `Invalid` that names the one that is wrong."""
    _refuse_conflicts(given, detached=detached)
    opened, bindings = ports(given["publish"], given["expose"])
    binds, anonymous = volumes(given["volume"])
    networks = [_network(text) for text in given["network"]]
    streams = attached_streams(given, detached=detached)
    body: Document = {
        "Image": image,
        "Cmd": list(arguments) or None,
        "Hostname": given["hostname"] or "",
        "Domainname": given["domainname"] or "",
        "User": given["user"] or "",
        "WorkingDir": given["workdir"] or "",
        "Env": environment(given["env"], given["env_file"]) or None,
        "Labels": labels(given["label"], given["label_file"]),
        "ExposedPorts": opened or None,
        "Volumes": anonymous or None,
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "Tty": given["tty"],
        "OpenStdin": given["interactive"],
        "StdinOnce": given["interactive"] and "stdin" in streams,
        "StopSignal": given["stop_signal"] or "",
        "StopTimeout": given["stop_timeout"],
        "Healthcheck": _health(given),
        "HostConfig": _host(given, binds, bindings, networks[0]["name"] if networks else "default"),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(networks, given)},
    }
    if given["entrypoint"] is not None:
        body["Entrypoint"] = [given["entrypoint"]]
    return body


def attached_streams(given: Document, *, detached: bool) -> list[str]:
    """To which of stdin, stdout and stderr the command attaches; raises `Invalid`."""
    for name in given["attach"]:
        if name.lower() not in _STREAMS:
            raise Invalid(f'invalid argument "{name}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR')
    if detached:
        return []
    chosen = [name.lower() for name in given["attach"]]
    if not chosen:
        return [*(["stdin"] if given["interactive"] else []), "stdout", "stderr"]
    return chosen


def _refuse_conflicts(given: Document, *, detached: bool) -> None:
    if detached and given["attach"]:
        raise Invalid("conflicting options: cannot specify both --attach and --detach")
    if given["rm"] and given["restart"] not in (None, "", "no"):
        raise Invalid("conflicting options: cannot specify both --restart and --rm")
    checks = ("health_cmd", "health_interval", "health_timeout", "health_start_period", "health_start_interval", "health_retries")
    if given["no_healthcheck"] and any(given[name] is not None for name in checks):
        raise Invalid("--no-healthcheck conflicts with --health-* options")


def _host(given: Document, binds: list[str], bindings: Document, network: str) -> Document:
    host: Document = {
        "Binds": binds or None,
        "Mounts": [mount(text) for text in given["mount"]] or None,
        "Tmpfs": tmpfs(given["tmpfs"]) or None,
        "VolumesFrom": list(given["volumes_from"]) or None,
        "VolumeDriver": given["volume_driver"] or "",
        "ContainerIDFile": given["cidfile"] or "",
        "NetworkMode": network,
        "PortBindings": bindings or None,
        "PublishAllPorts": given["publish_all"],
        "RestartPolicy": restart_policy(given["restart"] or ""),
        "AutoRemove": given["rm"],
        "CapAdd": list(given["cap_add"]) or None,
        "CapDrop": list(given["cap_drop"]) or None,
        "Dns": list(given["dns"]) or None,
        "DnsSearch": list(given["dns_search"]) or None,
        "DnsOptions": list(given["dns_option"]) or None,
        "ExtraHosts": [_extra_host(text) for text in given["add_host"]] or None,
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
        "SecurityOpt": [_security(text) for text in given["security_opt"]] or None,
        "StorageOpt": pairs("--storage-opt", given["storage_opt"]) or None,
        "Sysctls": pairs("--sysctl", given["sysctl"]) or None,
        "Annotations": pairs("--annotation", given["annotation"]) or None,
        "Ulimits": [ulimit(text) for text in given["ulimit"]] or None,
        "Devices": [device(text) for text in given["device"]] or None,
        "DeviceCgroupRules": list(given["device_cgroup_rule"]) or None,
        "LogConfig": {"Type": given["log_driver"] or "", "Config": pairs("--log-opt", given["log_opt"])},
        "Runtime": given["runtime"] or "",
        **_resources(given),
    }
    if given["tty"]:
        from boxship.cli.stdio import terminal_size

        columns, rows = terminal_size()
        host["ConsoleSize"] = [rows, columns]
    return host


def _resources(given: Document) -> Document:
    sizes = {"ShmSize": "shm_size", "Memory": "memory", "MemorySwap": "memory_swap", "MemoryReservation": "memory_reservation"}
    numbers = {
        "CpuShares": "cpu_shares", "CpuPeriod": "cpu_period", "CpuQuota": "cpu_quota", "CpuRealtimePeriod": "cpu_rt_period",
        "CpuRealtimeRuntime": "cpu_rt_runtime", "BlkioWeight": "blkio_weight", "OomScoreAdj": "oom_score_adj",
    }  # fmt: skip
    rates = {
        "BlkioDeviceReadBps": "device_read_bps", "BlkioDeviceWriteBps": "device_write_bps",
        "BlkioDeviceReadIOps": "device_read_iops", "BlkioDeviceWriteIOps": "device_write_iops",
    }  # fmt: skip
    return {
        **{field: parse_size(given[option]) if given[option] else 0 for field, option in sizes.items()},
        **{field: given[option] or 0 for field, option in numbers.items()},
        **{field: [_rated(text, "Rate") for text in given[option]] or None for field, option in rates.items()},
        "BlkioWeightDevice": [_rated(text, "Weight") for text in given["blkio_weight_device"]] or None,
        "NanoCpus": nano_cpus(given["cpus"]) if given["cpus"] else 0,
        "CpusetCpus": given["cpuset_cpus"] or "",
        "CpusetMems": given["cpuset_mems"] or "",
        "MemorySwappiness": given["memory_swappiness"],
        "PidsLimit": given["pids_limit"],
        "OomKillDisable": True if given["oom_kill_disable"] else None,
    }


def _rated(text: str, field: str) -> Document:
    path, separator, value = text.rpartition(":")
    if not separator or not path.startswith("/dev/"):
        raise Invalid(f"bad format: {text}", hint="use /dev/NAME:VALUE")
    return {"Path": path, field: parse_size(value)}


def _extra_host(text: str) -> str:
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name or not address:
        raise Invalid(f'bad format for add-host: "{text}"', hint="use host:ip")
    return f"{name}:{address.strip('[]')}"


def _security(text: str) -> str:
    """A seccomp profile's file is read here: the engine gets its text. Raises `Invalid`."""
    name, separator, value = text.partition("=" if "=" in text else ":")
    if name == "seccomp" and value not in ("unconfined", "builtin"):
        try:
            with open(value) as file:
                return f"seccomp={json.dumps(json.load(file))}"
        except (OSError, ValueError) as error:
            raise Invalid(f"opening seccomp profile ({value}) failed: {error}") from error
    return f"{name}={value}" if separator else text


# --- networks ---


def _network(text: str) -> Document:
    """`--network NAME` or `--network name=…,alias=…,ip=…`; raises `Invalid`."""
    if "=" not in text:
        return {"name": text}
    found: Document = {}
    for name, value, _ in csv_fields(text):
        match name:
            case "name" | "ip" | "ip6" | "mac-address":
                found[name] = value
            case "alias" | "link-local-ip" | "driver-opt":
                found.setdefault(name, []).append(value)
            case "gw-priority":
                if not value.lstrip("-").isdecimal():
                    raise Invalid(f"invalid gw-priority ({value}): expected a number")
                found[name] = int(value)
            case _:
                raise Invalid(f"invalid field {name}")
    if not found.get("name"):
        raise Invalid(f"network name/id is not specified in {text!r}")
    return found


def _endpoints(networks: list[Document], given: Document) -> Document:
    own: Document = {
        name: given[option]
        for name, option in (("ip", "ip"), ("ip6", "ip6"), ("mac-address", "mac_address"), ("alias", "network_alias"),
                             ("link-local-ip", "link_local_ip"))
        if given[option]
    }  # fmt: skip
    if not networks and own:
        networks = [{"name": "default"}]
    if networks and own:
        twice = sorted(set(own) & set(networks[0]))
        if twice:
            raise Invalid(f"conflicting options: cannot specify both --{twice[0]} and per-network {twice[0]}")
        networks = [{**networks[0], **own}, *networks[1:]]
    names = [network["name"] for network in networks]
    if len(set(names)) < len(names):
        raise Invalid(f'network "{next(name for name in names if names.count(name) > 1)}" is specified multiple times')
    found = {network["name"]: _endpoint(network) for network in networks}
    return found if len(found) > 1 or any(found.values()) else {}


def _endpoint(network: Document) -> Document:
    addresses = {
        "IPv4Address": network.get("ip", ""),
        "IPv6Address": network.get("ip6", ""),
        "LinkLocalIPs": list(network.get("link-local-ip", ())) or None,
    }
    fields = {
        "IPAMConfig": addresses if any(addresses.values()) else None,
        "Aliases": list(network.get("alias", ())),
        "MacAddress": network.get("mac-address"),
        "DriverOpts": pairs("driver-opt", network.get("driver-opt", ())),
        "GwPriority": network.get("gw-priority"),
    }
    return {name: value for name, value in fields.items() if value}


def _health(given: Document) -> Document | None:
    if given["no_healthcheck"]:
        return {"Test": ["NONE"]}
    fields = {"Interval": "health_interval", "Timeout": "health_timeout", "StartPeriod": "health_start_period",
              "StartInterval": "health_start_interval"}  # fmt: skip
    found: Document = {name: nanoseconds(given[option]) for name, option in fields.items() if given[option]}
    if given["health_retries"]:
        found["Retries"] = given["health_retries"]
    if given["health_cmd"]:
        found["Test"] = ["CMD-SHELL", given["health_cmd"]]
    return found or None

"""The configuration of a container, as the Engine API defines it (`ContainerCreate`).

These structures are stored and handed back by `inspect` as they came, so they carry the API's names
themselves: a second set of classes that differ only in spelling would have to follow every new field.
"""

from __future__ import annotations

from typing import Any

import msgspec

from boxship.oci.image_config import Healthcheck


class Structure(msgspec.Struct, frozen=True, rename="pascal", kw_only=True):
    """Base: frozen, keyword only, PascalCase on the wire."""


class ContainerConfig(Structure, frozen=True):
    """What is portable between hosts."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class PortBinding(Structure, frozen=True):
    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(Structure, frozen=True):
    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Structure, frozen=True):
    type: str = ""
    config: dict[str, str] | None = None


class DeviceMapping(Structure, frozen=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class DeviceRequest(Structure, frozen=True):
    driver: str = ""
    count: int = 0
    device_i_ds: list[str] | None = msgspec.field(name="DeviceIDs", default=None)
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Ulimit(Structure, frozen=True):
    name: str = ""
    soft: int = 0
    hard: int = 0


class WeightDevice(Structure, frozen=True):
    path: str = ""
    weight: int = 0


class ThrottleDevice(Structure, frozen=True):
    path: str = ""
    rate: int = 0


class BindOptions(Structure, frozen=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Structure, frozen=True):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Structure, frozen=True):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(Structure, frozen=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class Mount(Structure, frozen=True):
    """A `--mount`: `bind`, `volume` or `tmpfs`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: dict[str, Any] | None = None
    cluster_options: dict[str, Any] | None = None


class HostConfig(Structure, frozen=True):
    """What belongs to this host."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[Mount] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    umask: int | None = None
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(name="BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    kernel_memory_tcp: int = msgspec.field(name="KernelMemoryTCP", default=0)
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = msgspec.field(name="IOMaximumBandwidth", default=0)
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None


class EndpointIPAMConfig(Structure, frozen=True):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: list[str] | None = msgspec.field(name="LinkLocalIPs", default=None)


class EndpointConfig(Structure, frozen=True):
    """How a container is to stand on one network (`EndpointSettings`, the parts that a client may ask for)."""

    ipam_config: EndpointIPAMConfig | None = msgspec.field(name="IPAMConfig", default=None)
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0


class NetworkingConfig(Structure, frozen=True):
    endpoints_config: dict[str, EndpointConfig | None] | None = None

"""From a container's record to a running process: its network, its files, its specification, its start."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import msgspec

from boxship.containers import environment, mounts, request, specification
from boxship.containers.keeper import Keeper
from boxship.containers.model import Container
from boxship.containers.ports import port_requests
from boxship.errors import Conflict, Invalid, from_os_error
from boxship.network import resolvers
from boxship.network.model import Attachment, Endpoint
from boxship.network.service import Networks
from boxship.runtime.cgroups import Cgroups
from boxship.runtime.protocol import Log, Start
from boxship.runtime.seccomp import Seccomp
from boxship.snapshots.contract import RootMount
from boxship.volumes.service import Volumes

Find = Callable[[str], Container]


class Launcher:
    """Starts what a record describes; `find` and `directory` lead to the containers that it names."""

    def __init__(
        self, *, networks: Networks, volumes: Volumes, keeper: Keeper, seccomp: Seccomp, cgroups: Cgroups, cgroup_parent: str,
        find: Find, directory: Callable[[str], Path], no_new_privileges: bool = False,
    ) -> None:  # fmt: skip
        self._networks = networks
        self._volumes = volumes
        self._keeper = keeper
        self._seccomp = seccomp
        self._cgroups = cgroups
        self.cgroup_parent = cgroup_parent.rstrip("/")
        self._find = find
        self._directory = directory
        self._no_new_privileges = no_new_privileges

    def cgroup(self, container: Container) -> str:
        parent = container.host.cgroup_parent
        return f"/{parent.strip('/')}/{container.id}" if parent else f"{self.cgroup_parent}/{container.id}"

    async def launch(self, container: Container, directory: Path, root: RootMount, log: Log) -> int:
        """Start it and return its process id; the files made for it go to `directory`.

        Raises `StartFailed`, `Conflict`, and what networks and mounts raise. What was taken until then is the
        caller's to give back: `release`.
        """
        descriptors: list[int] = []
        mode = container.host.network_mode
        if mode.startswith("container:"):
            hostname = self._find(mode[10:]).config.hostname
            container = msgspec.structs.replace(container, config=msgspec.structs.replace(container.config, hostname=hostname))
        try:
            namespace, endpoints, embedded = await self._network(container)
            if namespace is not None:
                descriptors.append(namespace)
            try:
                self._write_files(container, directory, endpoints, embedded=embedded)
            except OSError as error:
                raise from_os_error(error, "writing the container's files") from error
            cgroup = self.cgroup(container)
            mounted = await mounts.specification(container.mounts, self._volumes, container.id)
            spec = specification.build(
                container,
                specification.Surroundings(
                    self._cgroups, cgroup, self._pid_of, str(directory), mounted, self._no_new_privileges,
                ),
            )  # fmt: skip
            spec["process"]["env"] = environment.process_environment(container.config)
            program = self.seccomp_program(container, spec["process"]["capabilities"]["bounding"])
            if program is not None:
                descriptors.append(memory_file(program))
            config = container.config
            request = Start(
                container.id, spec, asdict(root), cgroup, log, config.open_stdin, config.stdin_once, bool(container.host.init),
                netns=namespace is not None, seccomp=program is not None,
            )  # fmt: skip
            return int((await self._keeper.ask(request, descriptors)).body["pid"])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def lacks_network(self, container: Container) -> bool:
        """Whether a container that runs should have endpoints, and no record of them is there."""
        mode = container.host.network_mode
        joined = mode in ("host", "none") or mode.startswith("container:") or container.config.network_disabled
        return bool(container.endpoints) and not joined and self._networks.sandbox(container.id) is None

    def hold(self, container: Container) -> None:
        """Count the volumes of a container that ran before this daemon as in use, until `release`."""
        for point in container.mounts:
            if point.kind == "volume":
                self._volumes.hold(point.name, container.id)

    def release(self, container: Container) -> None:
        """Give back the addresses, ports and volumes of a container that has ended."""
        self._networks.detach(container.id)
        for point in container.mounts:
            if point.kind == "volume":
                self._volumes.release(point.name, container.id)

    def seccomp_program(self, container: Container, held: list[str], *, privileged: bool = False) -> bytes | None:
        """The filter for a process with these capabilities; None for unconfined. Raises `Invalid`."""
        for option in container.host.security_opt or []:
            name, value = specification.security_option(option)
            if name == "seccomp":
                if value == "unconfined":
                    return None
                if value != "builtin":
                    return self._seccomp.program(value.encode(), held)
        if container.host.privileged or privileged:
            return None
        return self._seccomp.default(held)

    async def _network(self, container: Container) -> tuple[int | None, tuple[Endpoint, ...], bool]:
        mode = container.host.network_mode
        if mode == "host" or mode.startswith("container:"):
            return None, (), False
        if mode == "none" or container.config.network_disabled:
            return await self._networks.bare(), (), False
        requests = {name: request.endpoint_request(endpoint) for name, endpoint in container.endpoints.items()}
        sandbox = await self._networks.attach(
            Attachment(
                container.id, container.name, container.config.hostname, requests, tuple(port_requests(container)),
                tuple(container.host.dns or ()),
            )
        )  # fmt: skip
        return sandbox.namespace, sandbox.endpoints, sandbox.embedded_dns

    def _pid_of(self, name: str) -> int:
        other = self._find(name)
        if not other.state.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return other.state.pid

    def _write_files(self, container: Container, directory: Path, endpoints: tuple[Endpoint, ...], *, embedded: bool) -> None:
        host = container.host
        mode = host.network_mode
        if host.ipc_mode.startswith("container:") and self._find(host.ipc_mode[10:]).host.ipc_mode not in ("shareable", "host"):
            donor = self._find(host.ipc_mode[10:])
            raise Invalid(f"container {donor.id} has a non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
        if mode.startswith("container:"):
            other = self._directory(self._find(mode[10:]).id)
            for name in ("resolv.conf", "hostname", "hosts"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(other / name, directory / name)
            return
        base = resolvers.read(Path("/etc/resolv.conf"))
        (directory / "resolv.conf").write_text(environment.resolv_conf(host, base, embedded=embedded, host_network=mode == "host"))
        (directory / "hostname").write_text(container.config.hostname + "\n")
        if mode == "host" and not host.extra_hosts and Path("/etc/hosts").exists():
            shutil.copyfile("/etc/hosts", directory / "hosts")
            return
        gateway = next((endpoint.gateway for endpoint in endpoints if endpoint.gateway), "127.0.0.1")
        extra = [entry.replace("host-gateway", gateway) for entry in host.extra_hosts or []]
        linked = self._linked(container) if mode == "bridge" else []
        (directory / "hosts").write_text(environment.hosts_file(container.config, endpoints, extra, linked))

    def _linked(self, container: Container) -> list[tuple[str, list[str]]]:
        found = []
        for link in container.host.links or []:
            name, _, alias = link.partition(":")
            other = self._find(name)
            record = self._networks.sandbox(other.id)
            if record is None or not record.endpoints:
                raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias or name}")
            found.append((record.endpoints[0].ipv4.partition("/")[0], [alias or name, other.config.hostname, other.name]))
        return found


def memory_file(data: bytes) -> int:
    """A memfd holding `data`; the caller's to close."""
    descriptor = os.memfd_create("boxship", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return descriptor

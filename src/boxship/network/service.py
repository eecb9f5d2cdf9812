"""Networks: made, listed, removed; containers attached to them and let go."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from boxship.errors import BoxshipError, Conflict, Denied, Invalid, NotFound, Unavailable, Unsupported
from boxship.events.bus import Events
from boxship.network import bridge_options, links, plugging, resolvers
from boxship.network.addresses import AddressPool, Subnet, mac_of, parse_subnet, split_pools
from boxship.network.dns import Resolver
from boxship.network.firewall import Filtered, Firewall, redirect_resolver
from boxship.network.model import (
    Attachment,
    Endpoint,
    EndpointRequest,
    Network,
    Pool,
    PortRequest,
    PublishedPort,
    Sandbox,
    SandboxRecord,
)
from boxship.network.names import Names, bare
from boxship.network.namespaces import Workshop, open_resolver_sockets
from boxship.network.plugging import gateway_endpoint
from boxship.network.ports import Ports
from boxship.state.database import Database

T = TypeVar("T")

PREDEFINED = ("bridge", "host", "none")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_SPARE = 6
"""How many namespaces wait on the default bridge for containers to come."""


class Networks:
    """All networks of one engine; `instance` tells engines on one host apart, empty for the first."""

    def __init__(
        self, database: Database, events: Events, *, instance: str = "", bip: str = "",
        pools: list[tuple[str, int]] | None = None, resolv_conf: Path = Path("/etc/resolv.conf"),
    ) -> None:  # fmt: skip
        self._database = database
        self._events = events
        self._instance = instance
        self._bip = bip
        self._candidates = split_pools(pools or [])
        self._resolv_conf = resolv_conf
        self._networks = database.collection("networks", Network)
        self._sandboxes = database.collection("sandboxes", SandboxRecord)
        self._names = Names(self._networks, self._sandboxes)
        self._pools: dict[str, list[AddressPool]] = {}
        self._indexes: dict[str, int] = {}
        self._resolvers: dict[str, Resolver] = {}
        self._workshop = Workshop()
        self._firewall = Firewall(f"boxship-{instance}" if instance else "boxship")
        self._ports = Ports(self._firewall)
        self._spare: list[tuple[int, Endpoint]] = []
        self._spare_bare: list[int] = []
        self._refilling: asyncio.Task[None] | None = None
        self._ipv6_host = Path("/proc/net/if_inet6").exists()
        self._changing = asyncio.Lock()
        self._closed = False

    # --- life ---

    async def start(self) -> None:
        """Lay the firewall, make the bridges that are missing; raises `Unavailable` where the kernel refuses."""
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            if self._by_name(name) is None:
                bridge = f"boxship{'-' if self._instance else '0'}{self._instance}"[:15] if driver == "bridge" else ""
                options = bridge_options.of_default(bridge) if bridge else {}
                network = Network(secrets.token_hex(32), name, driver, time.time_ns(), bridge, options=options)
                self._networks.put(network.id, network)
        default = self.get("bridge")
        if not default.pools or (self._bip and default.pools[0] != _bip_pool(self._bip)):
            pool = _bip_pool(self._bip) if self._bip else await self._free_pool()
            self._networks.put(default.id, _replace(default, pools=[pool]))
        bridged = [network for network in self._networks.all.values() if network.driver == "bridge"]
        try:
            self._firewall.lay(_filtered(network) for network in bridged)
        except OSError as error:
            raise Unavailable(f"cannot set the firewall up: {(error.strerror or '').lower()}") from error
        _write_sysctl("ipv4/ip_forward", "1")
        for network in bridged:
            await self._realise(network)

    async def _realise(self, network: Network) -> None:
        """Make a network's bridge where it is missing."""
        self._pools[network.id] = [AddressPool(pool) for pool in network.pools]
        mtu = bridge_options.mtu(network)

        def make() -> int:
            route = self._workshop.route
            existing = links.list_links(route).get(network.bridge)
            made = existing is None
            if existing is None:
                route.request([links.make_bridge(network.bridge, mtu)])
                existing = links.list_links(route)[network.bridge]
            try:
                route.request(
                    links.add_address(existing.index, ipaddress.ip_interface(f"{pool.gateway}/{pool.subnet.prefixlen}"))
                    for pool in self._pools[network.id]
                )
            except OSError:
                if made:
                    route.request([links.delete_link(existing.index)])
                raise
            # no container tells the host where to route to (CVE-2020-13401)
            _write_sysctl(f"ipv6/conf/{network.bridge}/accept_ra", "0")
            # a connection to 127.0.0.1 that leads to a container leaves over the bridge; the firewall's guard
            # keeps everything that comes over it from the host's loopback
            _write_sysctl(f"ipv4/conf/{network.bridge}/route_localnet", "1")
            if any(pool.subnet.version == 6 for pool in self._pools[network.id]):
                _forward_ipv6()
            return existing.index

        try:
            self._indexes[network.id] = await self._workshop.run(make)
        except OSError as error:
            raise Unavailable(f"cannot make network {network.name}: {(error.strerror or '').lower()}") from error

    async def close(self, *, keep: bool = False) -> None:
        """End; with `keep` bridges and rules stay for the containers that go on."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refilling
        for resolver in self._resolvers.values():
            resolver.close()
        self._ports.close()
        for descriptor in [*(spare for spare, _ in self._spare), *self._spare_bare]:
            os.close(descriptor)
        self._spare.clear()
        self._spare_bare.clear()
        if not keep:
            indexes = list(self._indexes.values())

            def unmake() -> None:
                for index in indexes:
                    with contextlib.suppress(OSError):
                        self._workshop.route.request([links.delete_link(index)])

            await self._workshop.run(unmake)
            with contextlib.suppress(OSError):
                self._firewall.remove()
        self._workshop.close()
        self._firewall.close()

    # --- networks ---

    def all(self) -> list[Network]:
        return list(self._networks.all.values())

    def _by_name(self, name: str) -> Network | None:
        return next((network for network in self._networks.all.values() if network.name == name), None)

    def get(self, name: str) -> Network:
        """By name, id, or unique prefix of an id; raises `NotFound`, `Invalid`."""
        found = self._by_name(name) or self._networks.get(name)
        if found is not None:
            return found
        matching = [network for network in self._networks.all.values() if name and network.id.startswith(name)]
        if len(matching) > 1:
            raise Invalid(f"network {name} is ambiguous ({len(matching)} matches found based on ID prefix)")
        if not matching:
            raise NotFound(f"network {name} not found")
        return matching[0]

    def _exists(self, identity: str) -> Network:
        found = self._networks.get(identity)
        if found is None:
            raise NotFound(f"network {identity} not found")
        return found

    async def create(
        self, name: str, *, driver: str = "bridge", pools: list[Pool] | None = None, internal: bool = False,
        ipv6: bool = False, attachable: bool = False, labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None, ipam_driver: str = "default", ipam_options: dict[str, str] | None = None,
    ) -> Network:  # fmt: skip
        """Make a network; raises `Conflict`, `Invalid`, `NotFound` for a driver that does not exist."""
        if not _NAME.fullmatch(name):
            raise Invalid(f"invalid network name: {name!r}", hint="letters, digits, _ . and -, not first")
        if name in PREDEFINED:
            raise Denied(f"operation is not permitted on predefined {name} network")
        if self._by_name(name) is not None:
            raise Conflict(f"network with name {name} already exists")
        if driver in ("host", "null"):
            raise Denied(f'only one instance of "{driver}" network is allowed')
        if driver not in ("", "bridge"):
            raise NotFound(f'could not find plugin {driver} in v1 plugin registry: plugin "{driver}" not found')
        if ipam_driver not in ("", "default"):
            raise NotFound(f'could not find plugin {ipam_driver}: plugin "{ipam_driver}" not found')
        options = options or {}
        bridge_options.check(options)
        bridge = options.get(bridge_options.NAME)
        if bridge and bridge in await self._workshop.run(lambda: links.list_links(self._workshop.route)):
            raise Conflict(f"cannot make bridge {bridge}: the host has an interface of that name", hint="Boxship makes its own")
        for option in ipam_options or {}:
            raise Unsupported(f"IPAM option {option!r} is not supported")
        pools = list(pools or [])
        self._check_overlap(pools)
        versions = {parse_subnet(pool.subnet).version for pool in pools}
        if 4 not in versions:
            pools.insert(0, await self._free_pool())
        ipv6 = ipv6 or options.get(bridge_options.IPV6, "false").lower() in bridge_options.TRUE
        if ipv6 and 6 not in versions:
            pools.append(Pool(f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}::/64"))
        if 6 in versions and not ipv6:
            raise Invalid(f"network {name} has an IPv6 subnet, but IPv6 is not enabled", hint="add --ipv6")
        pools = [
            Pool(str(parse_subnet(p.subnet)), p.gateway or str(AddressPool(p).gateway), p.ip_range, p.auxiliary) for p in pools
        ]
        identity = secrets.token_hex(32)
        network = Network(
            identity, name, "bridge", time.time_ns(), bridge or f"br-{identity[:12]}", pools,
            internal, ipv6, attachable, labels or {}, options,
        )  # fmt: skip
        try:
            self._firewall.add_network(_filtered(network))
        except OSError as error:
            raise Unavailable(f"cannot make network {network.name}: {(error.strerror or '').lower()}") from error
        try:
            await self._realise(network)
        except BoxshipError:
            self._pools.pop(network.id, None)
            self._firewall.remove_network(_filtered(network))
            raise
        self._networks.put(network.id, network)
        self._events.publish("network", "create", network.id, name=name, type="bridge")
        return network

    def _check_overlap(self, pools: list[Pool]) -> None:
        for pool in pools:
            subnet = parse_subnet(pool.subnet)
            AddressPool(pool)
            for network in self._networks.all.values():
                for other in _subnets(network):
                    if other.overlaps(subnet):
                        raise Denied(
                            f"invalid pool request: Pool overlaps with other one on this address space: {subnet}"
                            f" is part of network {network.name}"
                        )

    async def _free_pool(self) -> Pool:
        taken = [subnet for _, subnet in await self._workshop.run(lambda: links.list_subnets(self._workshop.route))]
        for network in self._networks.all.values():
            taken += _subnets(network)
        for candidate in self._candidates:
            if candidate.version == 4 and not any(candidate.overlaps(subnet) for subnet in taken):
                return Pool(str(candidate), str(candidate[1]))
        raise Unavailable("all predefined address pools have been fully subnetted")

    async def remove(self, name: str) -> Network:
        """Remove a network; raises `Denied` for a predefined one, and while containers are attached."""
        network = self.get(name)
        if network.name in PREDEFINED:
            raise Denied(f"{network.name} is a pre-defined network and cannot be removed")
        users = self.containers_of(network)
        if users:
            listed = ", ".join(f'name:"{record.name}" id:"{record.container[:12]}"' for record, _ in users)
            raise Denied(f"error while removing network: network {network.name} has active endpoints ({listed})")
        index = self._indexes.pop(network.id, None)
        if index is not None:
            try:
                await self._workshop.run(lambda: self._workshop.route.request([links.delete_link(index)]))
            except OSError as error:
                if error.errno != errno.ENODEV:  # whoever took the bridge away has done our work
                    raise Unavailable(f"cannot remove network {network.name}: {(error.strerror or '').lower()}") from error
        self._firewall.remove_network(_filtered(network))
        self._pools.pop(network.id, None)
        self._networks.delete(network.id)
        self._events.publish("network", "destroy", network.id, name=network.name, type=network.driver)
        return network

    async def prune(self, accept: Callable[[Network], bool]) -> list[str]:
        """Remove unused networks that `accept` takes; their names."""
        removed = []
        for network in self.all():
            if network.name not in PREDEFINED and not self.containers_of(network) and accept(network):
                await self.remove(network.id)
                removed.append(network.name)
        return removed

    def containers_of(self, network: Network) -> list[tuple[SandboxRecord, Endpoint]]:
        return [
            (record, endpoint)
            for record in self._sandboxes.all.values()
            for endpoint in record.endpoints
            if endpoint.network_id == network.id
        ]

    def pools_of(self, network: Network) -> list[AddressPool]:
        """The addresses of each of its subnets."""
        return self._pools.get(network.id, [])

    # --- containers ---

    def sandbox(self, container: str) -> SandboxRecord | None:
        return self._sandboxes.get(container)

    async def bare(self) -> int:
        """A namespace with nothing but its loopback; the descriptor is the caller's."""
        if self._spare_bare:
            descriptor = self._spare_bare.pop()
            self._refill()
            return descriptor
        return await self._workshop.run(self._workshop.make)

    async def attach(self, attachment: Attachment) -> Sandbox:
        """Make a container's namespace; raises `NotFound`, `Conflict`, `Invalid`. On failure nothing is held."""
        networks = {name: self.get(name) for name in attachment.networks}
        simple = list(networks.values())
        if (
            len(simple) == 1
            and simple[0].name == "bridge"
            and attachment.networks[next(iter(networks))] == EndpointRequest()
            and self._spare
        ):
            namespace, endpoint = self._spare.pop()
            endpoints = [endpoint]
            self._refill()
        else:
            namespace, endpoints = await self._make(attachment, networks)
        ports: list[PublishedPort] = []
        resolver: Resolver | None = None
        embedded = any(endpoint.network != "bridge" for endpoint in endpoints)
        try:
            upstreams = list(attachment.resolvers) or list(resolvers.read(self._resolv_conf).servers)
            if embedded:
                resolver = await self._serve_names(attachment.container, namespace, upstreams, [])
            if attachment.ports:
                ports = await self._publish(attachment.name, attachment.ports, endpoints)
            for network in networks.values():
                self._exists(network.id)  # somebody may have removed it meanwhile
        except BaseException:
            self._close_resolver(attachment.container)
            self._let_go(ports, gateway_endpoint(endpoints))
            for endpoint in endpoints:
                self._release(endpoint)
            os.close(namespace)
            raise
        dns_ports = resolver.ports if resolver is not None else []
        self._sandboxes.put(
            attachment.container,
            SandboxRecord(attachment.container, attachment.name, endpoints, ports, dns_ports, upstreams if embedded else []),
        )
        for endpoint in endpoints:
            self._events.publish(
                "network",
                "connect",
                endpoint.network_id,
                container=attachment.container,
                name=endpoint.network,
                type="bridge",
            )
        return Sandbox(namespace, tuple(endpoints), tuple(ports), embedded)

    async def _make(self, attachment: Attachment, networks: dict[str, Network]) -> tuple[int, list[Endpoint]]:
        endpoints: list[Endpoint] = []
        try:
            for name, request in attachment.networks.items():
                taken = {endpoint.interface for endpoint in endpoints}
                endpoints.append(self._endpoint(networks[name], request, taken, attachment.container, attachment.name))

            def make() -> int:
                namespace = self._workshop.make()
                try:
                    for endpoint in endpoints:
                        self._plug(namespace, endpoint)
                    plugging.route(self._workshop, namespace, endpoints)
                except BaseException:
                    os.close(namespace)
                    raise
                return namespace

            making = asyncio.ensure_future(self._workshop.run(make))
            try:
                return await asyncio.shield(making), endpoints
            except asyncio.CancelledError:
                # the thread goes on; what it makes is for nobody
                making.add_done_callback(_close_made)
                raise
        except BaseException as error:
            for endpoint in endpoints:
                self._release(endpoint)
            if isinstance(error, OSError):
                raise Unavailable(f"cannot make the container's network: {(error.strerror or '').lower()}") from error
            raise

    def _endpoint(
        self, network: Network, request: EndpointRequest, taken_names: Iterable[str], container: str, name: str
    ) -> Endpoint:
        """Take addresses on a network."""
        interface = bridge_options.interface_name(network, request, set(taken_names))
        ipv4 = ipv6 = gateway = gateway6 = mac = ""
        taken: list[tuple[AddressPool, str]] = []
        try:
            for pool in self._pools[network.id]:
                version = pool.subnet.version
                if (version == 4 and ipv4) or (version == 6 and ipv6):
                    continue
                wanted = request.ipv4 if version == 4 else request.ipv6
                if wanted and ipaddress.ip_address(wanted) not in pool.subnet:
                    continue
                address = pool.take(wanted)
                taken.append((pool, str(address)))
                text = f"{address}/{pool.subnet.prefixlen}"
                if version == 4:
                    ipv4, gateway = text, "" if network.internal else str(pool.gateway)
                    mac = mac_of(address)
                else:
                    ipv6, gateway6 = text, "" if network.internal else str(pool.gateway)
            if request.ipv4 and not ipv4:
                raise Invalid(f"invalid address {request.ipv4}: It does not belong to any of this network's subnets")
            if request.ipv6 and not ipv6:
                raise Invalid(f"invalid address {request.ipv6}: It does not belong to any of this network's subnets")
        except BaseException:
            for pool, text in taken:
                pool.release(text)
            raise
        dns_names = [] if network.name == "bridge" else [n for n in dict.fromkeys([name, *request.aliases, container[:12]]) if n]
        return Endpoint(
            secrets.token_hex(32), network.id, network.name, request.mac or mac, ipv4, ipv6, gateway, gateway6,
            list(request.aliases), dns_names, list(request.links), interface, request.ipv4, request.ipv6,
            request.priority, request.driver_options,
        )  # fmt: skip

    def _plug(self, namespace: int, endpoint: Endpoint) -> None:
        """Put an interface into a namespace; on the workshop's thread."""
        network = self._exists(endpoint.network_id)
        bridge = self._indexes.get(network.id)
        if bridge is None:
            raise NotFound(f"network {network.name} not found")
        plugging.plug(
            self._workshop, namespace, endpoint, bridge, bridge_options.mtu(network),
            isolated=not bridge_options.enabled(network, bridge_options.ICC),
        )  # fmt: skip

    async def _publish(self, name: str, requests: tuple[PortRequest, ...], endpoints: list[Endpoint]) -> list[PublishedPort]:
        published: list[PublishedPort] = []
        outward = gateway_endpoint(endpoints)
        if outward is None:
            return []
        network = self._networks.get(outward.network_id)
        host_ip = (network.options if network else {}).get(bridge_options.HOST_IP, "")
        ipv4, ipv6 = bare(outward.ipv4), bare(outward.ipv6)
        try:
            for request in requests:
                wanted = request if request.host_ip or not host_ip else _replace(request, host_ip=host_ip)
                published += await self._ports.publish(wanted, ipv4, ipv6, ipv6_host=self._ipv6_host)
        except BoxshipError as error:
            for port in published:
                self._ports.release(port, ipv4, ipv6)
            raise type(error)(
                f"failed to set up container networking: driver failed programming external connectivity on endpoint"
                f" {name} ({outward.id}): {error.message}"
            ) from error
        return published

    def _release(self, endpoint: Endpoint) -> None:
        for pool in self._pools.get(endpoint.network_id, ()):
            for text in (endpoint.ipv4, endpoint.ipv6):
                address = bare(text)
                if address and ipaddress.ip_address(address) in pool.subnet:
                    pool.release(address)

    def detach(self, container: str) -> None:
        """Free what a container held; one that held nothing is no error."""
        record = self._sandboxes.get(container)
        if record is None:
            return
        self._sandboxes.delete(container)
        self._let_go(record.ports, gateway_endpoint(record.endpoints))
        self._close_resolver(container)
        for endpoint in record.endpoints:
            self._release(endpoint)
            self._events.publish(
                "network", "disconnect", endpoint.network_id, container=container, name=endpoint.network, type="bridge"
            )

    def _let_go(self, ports: list[PublishedPort], outward: Endpoint | None) -> None:
        for port in ports:
            self._ports.release(port, bare(outward.ipv4) if outward else "", bare(outward.ipv6) if outward else "")

    def _close_resolver(self, container: str) -> None:
        resolver = self._resolvers.pop(container, None)
        if resolver is not None:
            resolver.close()

    def rename(self, container: str, name: str) -> None:
        """Let a container's new name be found."""
        record = self._sandboxes.get(container)
        if record is not None:
            endpoints = [
                _replace(endpoint, dns_names=[name if known == record.name else known for known in endpoint.dns_names])
                for endpoint in record.endpoints
            ]
            self._sandboxes.put(container, _replace(record, name=name, endpoints=endpoints))

    async def connect(self, attachment: Attachment, pid: int) -> Endpoint:
        """Plug a running container into the one further network of the attachment.

        Raises `Denied` where it is on it already, `Conflict` where it ends meanwhile, and what `attach` raises. Its
        ports are published where it could not get out before.
        """
        ((asked, request),) = attachment.networks.items()
        container, network = attachment.container, self.get(asked)
        async with self._changing:
            record = self._sandboxes.get(container)
            if record is None:
                raise Conflict(f"container {container[:12]} is not running")
            if any(endpoint.network_id == network.id for endpoint in record.endpoints):
                raise Denied(f"endpoint with name {record.name} already exists in network {network.name}")
            taken = {endpoint.interface for endpoint in record.endpoints}
            endpoint = self._endpoint(network, request, taken, container, record.name)
            endpoints = [*record.endpoints, endpoint]
            dns_ports, servers = record.dns_ports, record.resolvers

            def plug(namespace: int) -> None:
                self._plug(namespace, endpoint)
                plugging.route(self._workshop, namespace, endpoints)

            try:
                with _namespace_of(pid) as namespace:
                    await self._workshop.run(lambda: plug(namespace))
                    if network.name != "bridge" and container not in self._resolvers:
                        servers = list(attachment.resolvers) or list(resolvers.read(self._resolv_conf).servers)
                        dns_ports = (await self._serve_names(container, namespace, servers, [])).ports
            except OSError as error:
                self._release(endpoint)
                raise Unavailable(f"cannot connect to {network.name}: {(error.strerror or '').lower()}") from error
            if container not in self._sandboxes.all:
                self._release(endpoint)
                self._close_resolver(container)
                raise Conflict(f"container {container[:12]} is not running")
            record = _replace(record, endpoints=endpoints, dns_ports=dns_ports, resolvers=servers)
            self._sandboxes.put(container, record)
            self._events.publish("network", "connect", network.id, container=container, name=network.name, type="bridge")
            try:
                await self._lead_ports(record, endpoints[:-1], attachment.ports)
            except BoxshipError:
                await self._disconnect(record, endpoint, pid)
                raise
            return endpoint

    async def disconnect(self, container: str, network: Network, pid: int) -> Endpoint:
        """Unplug a running container: what it had there. Raises `Denied` where it is not on the network, `Unavailable`."""
        async with self._changing:
            record = self._sandboxes.get(container)
            gone = next((e for e in record.endpoints if e.network_id == network.id), None) if record else None
            if record is None or gone is None:
                raise Denied(f"container {container} is not connected to network {network.name}")
            await self._disconnect(record, gone, pid)
            return gone

    async def _disconnect(self, record: SandboxRecord, gone: Endpoint, pid: int) -> None:
        remaining = [endpoint for endpoint in record.endpoints if endpoint is not gone]

        def unplug(namespace: int) -> None:
            plugging.unplug(self._workshop, namespace, gone)
            plugging.route(self._workshop, namespace, remaining)

        try:
            with _namespace_of(pid) as namespace:
                await self._workshop.run(lambda: unplug(namespace))
        except OSError as error:
            raise Unavailable(f"cannot disconnect from {gone.network}: {(error.strerror or '').lower()}") from error
        if record.container not in self._sandboxes.all:
            return  # it has ended meanwhile, and with it everything was let go
        before, record = record.endpoints, _replace(record, endpoints=remaining)
        self._sandboxes.put(record.container, record)
        await self._lead_ports(record, before, ())
        self._release(gone)
        self._events.publish("network", "disconnect", gone.network_id, container=record.container, name=gone.network, type="bridge")

    async def _lead_ports(self, record: SandboxRecord, before: list[Endpoint], requests: tuple[PortRequest, ...]) -> None:
        """Lead a container's published ports to the endpoint by which it gets out now, where that is another."""
        old, new = gateway_endpoint(before), gateway_endpoint(record.endpoints)
        if (old and old.id) == (new and new.id):
            return
        ports: list[PublishedPort] = []
        if old is None:
            ports = await self._publish(record.name, requests, record.endpoints)
        else:
            for port in record.ports:
                self._ports.release(port, bare(old.ipv4), bare(old.ipv6))
                if new is not None:
                    # somebody else may have been quicker; then it is not listed as published any more
                    with contextlib.suppress(BoxshipError):
                        await self._ports.take(port, bare(new.ipv4), bare(new.ipv6))
                        ports.append(port)
        if record.container in self._sandboxes.all:
            self._sandboxes.put(record.container, _replace(record, ports=ports))
        else:
            self._let_go(ports, new)

    # --- names ---

    async def _serve_names(self, container: str, namespace: int, upstreams: list[str], ports: list[int]) -> Resolver:
        def open_inside() -> Resolver:
            sockets = open_resolver_sockets(ports)
            resolver = Resolver(
                *sockets, lambda name: self._names.look_up(container, name), lambda a: self._names.reverse(container, a),
                lambda: self._names.upstreams(container, upstreams),
            )  # fmt: skip
            if not ports:
                redirect_resolver(*resolver.ports)
            return resolver

        resolver = await self._workshop.run(lambda: self._workshop.inside(namespace, open_inside))
        self._resolvers[container] = resolver
        await resolver.serve()
        return resolver

    # --- after a restart ---

    async def restore(self, running: dict[str, int]) -> None:
        """Take up again the containers that run (id to pid), free what the others held."""
        for record in list(self._sandboxes.all.values()):
            pid = running.get(record.container)
            if pid is None:
                self._sandboxes.delete(record.container)
                continue
            for endpoint in record.endpoints:
                for pool in self._pools.get(endpoint.network_id, ()):
                    for text in (endpoint.ipv4, endpoint.ipv6):
                        if text and ipaddress.ip_address(bare(text)) in pool.subnet:
                            pool.claim(bare(text))
            outward = gateway_endpoint(record.endpoints)
            for port in record.ports:
                if outward is not None:
                    with contextlib.suppress(BoxshipError):
                        await self._ports.take(port, bare(outward.ipv4), bare(outward.ipv6))
            if record.dns_ports:
                with contextlib.suppress(OSError):
                    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        await self._serve_names(record.container, namespace, record.resolvers, record.dns_ports)
                    finally:
                        os.close(namespace)
        # only now: the spares must not take what a running container has
        self._refill()

    # --- spares ---

    def _refill(self) -> None:
        if self._closed or (self._refilling is not None and not self._refilling.done()):
            return
        self._refilling = asyncio.get_running_loop().create_task(self._fill_spares())

    async def _fill_spares(self) -> None:
        # let the request that took one go on first
        await asyncio.sleep(0.01)
        default = self.get("bridge")
        while not self._closed and (len(self._spare) < _SPARE or len(self._spare_bare) < _SPARE // 2):
            try:
                if len(self._spare) < _SPARE:
                    spare = Attachment("", "", "", {"bridge": EndpointRequest()})
                    namespace, endpoints = await self._make(spare, {"bridge": default})
                    self._spare.append((namespace, endpoints[0]))
                else:
                    self._spare_bare.append(await self._workshop.run(self._workshop.make))
            except BoxshipError:
                return  # whoever needs one is told why


@contextlib.contextmanager
def _namespace_of(pid: int) -> Iterator[int]:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _close_made(making: asyncio.Future[int]) -> None:
    if not making.cancelled() and making.exception() is None:
        os.close(making.result())


def _subnets(network: Network) -> list[Subnet]:
    return [parse_subnet(pool.subnet) for pool in network.pools]


def _filtered(network: Network) -> Filtered:
    return Filtered(
        network.bridge, tuple(_subnets(network)), network.internal,
        bridge_options.enabled(network, bridge_options.MASQUERADE), bridge_options.enabled(network, bridge_options.ICC),
    )  # fmt: skip


def _bip_pool(bip: str) -> Pool:
    try:
        interface = ipaddress.ip_interface(bip)
    except ValueError:
        raise Invalid(f"invalid bip {bip!r}", hint="expected an address and a prefix, as in 172.17.0.1/16") from None
    return Pool(str(interface.network), str(interface.ip))


def _replace(value: T, **changes: object) -> T:
    return msgspec.structs.replace(value, **changes)  # type: ignore[type-var]


def _forward_ipv6() -> None:
    """Turn forwarding on, and let the host take its routes from router advertisements as before (ip-sysctl, accept_ra)."""
    if Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "0":
        for path in Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"):
            if path.read_text().strip() == "1":
                path.write_text("2")
        _write_sysctl("ipv6/conf/all/forwarding", "1")


def _write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys/net") / name
    with contextlib.suppress(OSError):
        if path.read_text().strip() != value:
            path.write_text(value)

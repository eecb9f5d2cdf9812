"""`/networks`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from boxship.api.engine import progress, render, versions
from boxship.api.engine.filters import Filters
from boxship.api.engine.services import Services
from boxship.containers import membership
from boxship.containers.config import EndpointConfig
from boxship.errors import Invalid, Unsupported
from boxship.http.message import Request, Response, json_response
from boxship.network.model import Network, Pool
from boxship.network.service import PREDEFINED

Version = tuple[int, int]


class _PoolBody(msgspec.Struct, rename="pascal"):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary: dict[str, str] | None = msgspec.field(name="AuxiliaryAddresses", default=None)


class _IPAMBody(msgspec.Struct, rename="pascal"):
    driver: str = "default"
    config: list[_PoolBody] | None = None
    options: dict[str, str] | None = None


class _CreateBody(msgspec.Struct, rename="pascal"):
    name: str = ""
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    scope: str = ""
    config_only: bool = False
    config_from: dict[str, Any] | None = None
    ipam: _IPAMBody | None = msgspec.field(name="IPAM", default=None)
    enable_ipv4: bool | None = msgspec.field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = msgspec.field(name="EnableIPv6", default=None)
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class _ConnectBody(msgspec.Struct, rename="pascal"):
    container: str = ""
    endpoint_config: EndpointConfig | None = None
    force: bool = False


async def list_(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, ("dangling", "driver", "id", "label", "name", "scope", "type"))
    found = [network for network in services.networks.all() if _matches(services, network, filters)]
    return json_response(
        [versions.network(render.network(services.networks, network, detailed=False), version) for network in found]
    )


def _matches(services: Services, network: Network, filters: Filters) -> bool:
    custom = network.name not in PREDEFINED

    def any_of(name: str, test: Any) -> bool:
        values = filters.get(name)
        return not values or any(test(value) for value in values)

    for value in filters.get("type"):
        if value not in ("custom", "builtin"):
            raise Invalid(f"invalid filter: 'type'='{value}'")
    unused = not services.networks.containers_of(network)
    return (
        any_of("driver", lambda v: v == network.driver)
        and any_of("id", lambda v: network.id.startswith(v))
        and any_of("name", lambda v: re.search(v, network.name))
        and any_of("scope", lambda v: v == "local")
        and any_of("type", lambda v: (v == "custom") == custom)
        and ("dangling" not in filters or filters.flag("dangling", default=False) == (unused and custom))
        and filters.labels(network.labels)
    )


async def create(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(_CreateBody)
    for option, asked in (
        ("Ingress", body.ingress), ("ConfigOnly", body.config_only),
        ("ConfigFrom", body.config_from and body.config_from.get("Network")), ("Scope", body.scope not in ("", "local")),
        ("EnableIPv4=false", body.enable_ipv4 is False),
    ):  # fmt: skip
        if asked:
            raise Unsupported(f"network option {option} is not supported")
    ipam = body.ipam or _IPAMBody()
    pools = [Pool(p.subnet, p.gateway, p.ip_range, p.auxiliary or {}) for p in ipam.config or [] if p.subnet]
    if any(not p.subnet and (p.gateway or p.ip_range) for p in ipam.config or []):
        raise Invalid("invalid network config: a gateway or range needs its subnet")
    network = await services.networks.create(
        body.name, driver=body.driver or "bridge", pools=pools, internal=body.internal, ipv6=bool(body.enable_ipv6),
        attachable=body.attachable, labels=body.labels, options=body.options, ipam_driver=ipam.driver or "default",
        ipam_options=ipam.options,
    )  # fmt: skip
    await services.database.committed()
    return json_response({"Id": network.id, "Warning": ""}, 201)


async def inspect(services: Services, request: Request, version: Version) -> Response:
    document = render.network(services.networks, services.networks.get(request.parameters["id"]), detailed=True)
    return json_response(versions.network(document, version))


async def remove(services: Services, request: Request, version: Version) -> Response:
    await services.networks.remove(request.parameters["id"])
    await services.database.committed()
    return Response(204)


async def connect(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(_ConnectBody)
    network, container = services.networks.get(request.parameters["id"]), services.containers.get(body.container)
    await membership.connect(services.containers, container, network, body.endpoint_config or EndpointConfig())
    await services.database.committed()
    return Response(200)


async def disconnect(services: Services, request: Request, version: Version) -> Response:
    body = await request.json(_ConnectBody)
    network, container = services.networks.get(request.parameters["id"]), services.containers.get(body.container)
    await membership.disconnect(services.containers, container, network)
    await services.database.committed()
    return Response(200)


async def prune(services: Services, request: Request, version: Version) -> Response:
    filters = Filters(request.query, ("label", "label!", "until"))
    until = filters.until()
    used = {name for container in services.containers.all() for name in container.endpoints}
    removed = await services.networks.prune(
        lambda n: filters.labels(n.labels) and filters.without_labels(n.labels) and n.created < until and n.name not in used
    )
    await services.database.committed()
    services.events.publish("network", "prune", "", reclaimed="0")
    return progress.pruned(request, version, removed, {"NetworksDeleted": removed or None})


ENDPOINTS = (
    ("GET", "/networks", list_),
    ("GET", "/networks/", list_),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
    ("DELETE", "/networks/{id}", remove),
    ("POST", "/networks/{id}/connect", connect),
    ("POST", "/networks/{id}/disconnect", disconnect),
)

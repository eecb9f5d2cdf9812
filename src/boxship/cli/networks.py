"""`network`."""

from __future__ import annotations

from typing import Any

import click

from boxship.cli import formatting as f
from boxship.cli.containers import confirm, for_each, report_pruned
from boxship.cli.session import Session, at, pass_session
from boxship.cli.values import filters, labels, pairs
from boxship.cli.verb import command, unsupported
from boxship.errors import Invalid, NotFound

Pool = dict[str, Any]


@command("create")
@click.option("-d", "--driver", default="bridge", help="The driver (bridge).")
@click.option("--subnet", multiple=True, help="A subnet, such as 10.1.0.0/16.")
@click.option("--gateway", multiple=True, help="The gateway's address.")
@click.option("--ip-range", multiple=True, help="Where containers' addresses are taken from.")
@click.option("--aux-address", multiple=True, help="Addresses taken by others: name=address.")
@click.option("--ipam-driver", default="default", help="Who gives out addresses (default).")
@click.option("--ipam-opt", multiple=True, help="An option of that driver.")
@click.option("--internal", is_flag=True, help="No way out.")
@click.option("--ipv4/--no-ipv4", default=None, help="IPv4 (the default).")
@click.option("--ipv6/--no-ipv6", default=None, help="IPv6, too.")
@click.option("--attachable", is_flag=True, help="Containers may join by hand.")
@click.option("--scope", default="", help="The network's scope.")
@click.option("-o", "--opt", multiple=True, help="An option of the driver.")
@click.option("--label", multiple=True, help="Set a label.")
@unsupported("--config-from", flags=("--config-only", "--ingress"))
@click.argument("name")
@pass_session
def create(session: Session, /, name: str, **given: Any) -> None:
    """Make a network and print its id."""
    body = {
        "Name": name, "Driver": given["driver"], "Scope": given["scope"], "Internal": given["internal"],
        "Attachable": given["attachable"], "Options": pairs("--opt", given["opt"]), "Labels": labels(given["label"]),
        "IPAM": {
            "Driver": given["ipam_driver"], "Options": pairs("--ipam-opt", given["ipam_opt"]),
            "Config": _pools(given["subnet"], given["gateway"], given["ip_range"], pairs("--aux-address", given["aux_address"])),
        },
        **{f"EnableIPv{version}": given[f"ipv{version}"] for version in (4, 6) if given[f"ipv{version}"] is not None},
    }  # fmt: skip
    answer = session.post("/networks/create", body)
    if answer.get("Warning"):
        click.echo(f"WARNING: {answer['Warning']}", err=True)
    click.echo(answer["Id"])


def _pools(subnets: tuple[str, ...], gateways: tuple[str, ...], ranges: tuple[str, ...], others: dict[str, str]) -> list[Pool]:
    """Every address with the subnet that holds it; raises `Invalid` where none does."""
    import ipaddress

    pools: list[Pool] = [{"Subnet": each} for each in subnets]

    def place(address: str) -> Pool:
        for pool in pools:
            try:
                if ipaddress.ip_interface(address).ip in ipaddress.ip_network(str(pool["Subnet"]), strict=False):
                    return pool
            except ValueError as error:
                raise Invalid(f"invalid address: {error}") from error
        raise Invalid(
            f"no matching subnet for {address}" if pools else "every ip-range or gateway must have a corresponding subnet"
        )

    for each in gateways:
        place(each)["Gateway"] = each
    for each in ranges:
        place(each)["IPRange"] = each
    for key, each in others.items():
        place(each).setdefault("AuxiliaryAddresses", {})[key] = each
    return pools


_COLUMNS = {
    "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
    "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT", "Label": lambda name: name.rpartition(".")[2],
}  # fmt: skip


@command("ls")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@pass_session
def ls(session: Session, chosen: tuple[str, ...], form: str | None, *, no_trunc: bool, quiet: bool) -> None:
    """List networks."""
    found = session.get("/networks", filters=filters(chosen))
    rows = [_row(entry, full=no_trunc) for entry in sorted(found, key=lambda entry: f.natural(entry["Name"]))]
    if quiet and not form:
        form = "{{.ID}}"
    f.print_rows(rows, _COLUMNS, form, ["ID", "Name", "Driver", "Scope"])


def _row(entry: dict[str, Any], *, full: bool) -> dict[str, Any]:
    return {
        "CreatedAt": f.created(entry["Created"]),
        "Driver": entry["Driver"],
        "ID": entry["Id"] if full else entry["Id"][:12],
        "IPv4": str(entry.get("EnableIPv4", True)).lower(),
        "IPv6": str(entry["EnableIPv6"]).lower(),
        "Internal": str(entry["Internal"]).lower(),
        "Label": f.label_of(entry.get("Labels")),
        "Labels": f.joined(entry.get("Labels")),
        "Name": entry["Name"],
        "Scope": entry["Scope"],
    }


@command("rm")
@click.option("-f", "--force", is_flag=True, help="A missing one is no error.")
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool) -> None:
    """Remove networks."""

    def remove(name: str) -> None:
        try:
            session.delete(at("networks", name))
        except NotFound:
            if not force:
                raise

    for_each(names, remove)


@command("connect")
@click.option("--alias", multiple=True, help="Another name on the network.")
@click.option("--driver-opt", multiple=True, help="An option of the driver.")
@click.option("--gw-priority", type=int, default=0, help="The network of the highest gives the default route.")
@click.option("--ip", default="", help="An IPv4 address.")
@click.option("--ip6", default="", help="An IPv6 address.")
@click.option("--link", multiple=True, help="Link to another container.")
@click.option("--link-local-ip", multiple=True, help="A link-local address.")
@click.argument("name", metavar="NETWORK")
@click.argument("container")
@pass_session
def connect(session: Session, /, name: str, container: str, **given: Any) -> None:
    """Connect a container to a network."""
    addresses = {"IPv4Address": given["ip"], "IPv6Address": given["ip6"], "LinkLocalIPs": list(given["link_local_ip"]) or None}
    endpoint = {
        "Aliases": list(given["alias"]) or None,
        "DriverOpts": pairs("--driver-opt", given["driver_opt"]) or None,
        "GwPriority": given["gw_priority"],
        "IPAMConfig": addresses if any(addresses.values()) else None,
        "Links": list(given["link"]) or None,
    }
    session.post(at("networks", name, "connect"), {"Container": container, "EndpointConfig": endpoint})


@command("disconnect")
@click.option("-f", "--force", is_flag=True, help="Although the container does not answer.")
@click.argument("name", metavar="NETWORK")
@click.argument("container")
@pass_session
def disconnect(session: Session, name: str, container: str, *, force: bool) -> None:
    """Disconnect a container from a network."""
    session.post(at("networks", name, "disconnect"), {"Container": container, "Force": force})


@command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, force: bool) -> None:
    """Remove every network that no container uses."""
    confirm("This will remove all custom networks not used by at least one container.", force=force)
    report_pruned(session.post("/networks/prune", filters=filters(chosen)), "Networks", "NetworksDeleted")

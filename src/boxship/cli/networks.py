"""`network`."""

from __future__ import annotations

import click

from boxship.cli import formatting as f
from boxship.cli.containers import confirm, for_each, report_pruned
from boxship.cli.inspection import print_found
from boxship.cli.session import Session, pass_session
from boxship.errors import Invalid


@click.group("network")
def network() -> None:
    """Networks."""


def _pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise Invalid(f"invalid value for {option}: {value!r}", hint="use name=value")
    return dict(value.partition("=")[::2] for value in values)


@network.command("create")
@click.option("-d", "--driver", default="bridge", help="The driver (bridge).")
@click.option("--subnet", multiple=True, help="A subnet, such as 10.1.0.0/16.")
@click.option("--gateway", multiple=True, help="The gateway's address.")
@click.option("--ip-range", multiple=True, help="Where containers' addresses are taken from.")
@click.option("--aux-address", multiple=True, help="Addresses taken by others: name=address.")
@click.option("--internal", is_flag=True, help="No way out.")
@click.option("--ipv6", is_flag=True, help="IPv6, too.")
@click.option("--attachable", is_flag=True, help="Containers may join by hand.")
@click.option("-o", "--opt", multiple=True, help="An option of the driver.")
@click.option("--label", multiple=True, help="Set a label.")
@click.argument("name")
@pass_session
def create(
    session: Session, name: str, driver: str, subnet: tuple[str, ...], gateway: tuple[str, ...], ip_range: tuple[str, ...],
    aux_address: tuple[str, ...], opt: tuple[str, ...], label: tuple[str, ...], *, internal: bool, ipv6: bool, attachable: bool,
) -> None:  # fmt: skip
    """Make a network and print its id."""
    import ipaddress

    pools: list[dict[str, object]] = [{"Subnet": each} for each in subnet]

    def place(address: str) -> dict[str, object]:
        for pool in pools:
            try:
                if ipaddress.ip_interface(address).ip in ipaddress.ip_network(str(pool["Subnet"]), strict=False):
                    return pool
            except ValueError as error:
                raise Invalid(str(error)) from error
        raise Invalid(f"no matching subnet for {address}")

    for each in gateway:
        place(each)["Gateway"] = each
    for each in ip_range:
        place(each)["IPRange"] = each
    for key, each in _pairs(aux_address, "--aux-address").items():
        found = place(each).setdefault("AuxiliaryAddresses", {})
        assert isinstance(found, dict)
        found[key] = each
    body = {
        "Name": name, "Driver": driver, "Internal": internal, "EnableIPv6": ipv6, "Attachable": attachable,
        "IPAM": {"Driver": "default", "Config": pools}, "Options": _pairs(opt, "--opt"), "Labels": _pairs(label, "--label"),
    }  # fmt: skip
    click.echo(session.post("/networks/create", body)["Id"])


_COLUMNS = {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Internal": "INTERNAL", "Labels": "LABELS"}


@network.command("ls")
@click.option("-f", "--filter", "chosen", multiple=True, help="Only those that fit.")
@click.option("--format", "form", help="A Go template, 'table …', or json.")
@click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
@click.option("-q", "--quiet", is_flag=True, help="Ids alone.")
@pass_session
def ls(session: Session, chosen: tuple[str, ...], form: str | None, *, no_trunc: bool, quiet: bool) -> None:
    """List networks."""
    rows = [
        {
            "ID": entry["Id"] if no_trunc else entry["Id"][:12], "Name": entry["Name"], "Driver": entry["Driver"],
            "Scope": entry["Scope"], "Internal": str(entry["Internal"]).lower(),
            "Labels": ",".join(f"{key}={value}" for key, value in (entry["Labels"] or {}).items()),
        }
        for entry in sorted(session.get("/networks", filters=f.filters(chosen)), key=lambda entry: str(entry["Name"]))
    ]  # fmt: skip
    if quiet:
        for row in rows:
            click.echo(row["ID"])
        return
    f.print_rows(rows, _COLUMNS, form, ["ID", "Name", "Driver", "Scope"])


@network.command("inspect")
@click.option("-f", "--format", "form", help="A Go template, or json.")
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@pass_session
def inspect(session: Session, names: tuple[str, ...], form: str | None) -> None:
    """Show everything about networks."""
    print_found(session, names, ["/networks/{}"], form, "network")


@network.command("rm")
@click.option("-f", "--force", is_flag=True, help="A missing one is no error.")
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
@pass_session
def rm(session: Session, names: tuple[str, ...], *, force: bool) -> None:
    """Remove networks."""
    from boxship.errors import NotFound

    def remove(name: str) -> None:
        try:
            session.delete(f"/networks/{name}")
        except NotFound:
            if not force:
                raise

    for_each(names, remove)


@network.command("connect")
@click.option("--alias", multiple=True, help="Another name on the network.")
@click.option("--ip", default="", help="An IPv4 address.")
@click.option("--ip6", default="", help="An IPv6 address.")
@click.option("--link", multiple=True, help="Link to another container.")
@click.argument("name")
@click.argument("container")
@pass_session
def connect(
    session: Session, name: str, container: str, alias: tuple[str, ...], ip: str, ip6: str, link: tuple[str, ...]
) -> None:
    """Connect a container to a network."""
    endpoint: dict[str, object] = {"Aliases": list(alias) or None, "Links": list(link) or None}
    if ip or ip6:
        endpoint["IPAMConfig"] = {"IPv4Address": ip, "IPv6Address": ip6}
    session.post(f"/networks/{name}/connect", {"Container": container, "EndpointConfig": endpoint})


@network.command("disconnect")
@click.option("-f", "--force", is_flag=True, help="Although the container does not answer.")
@click.argument("name")
@click.argument("container")
@pass_session
def disconnect(session: Session, name: str, container: str, *, force: bool) -> None:
    """Disconnect a container from a network."""
    session.post(f"/networks/{name}/disconnect", {"Container": container, "Force": force})


@network.command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "chosen", multiple=True, help="Only those that fit.")
@pass_session
def prune(session: Session, chosen: tuple[str, ...], *, force: bool) -> None:
    """Remove every network that no container uses."""
    confirm("This will remove all custom networks not used by at least one container.", force=force)
    report_pruned(session.post("/networks/prune", filters=f.filters(chosen)), "Networks", "NetworksDeleted")

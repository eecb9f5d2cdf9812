"""Networks and attachments without containers, in a host of the test's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.network import Namespace

from boxship.errors import BoxshipError
from boxship.events.bus import Events
from boxship.network.model import Attachment, EndpointRequest, Pool
from boxship.network.service import Networks
from boxship.state.database import Database


@pytest.fixture
def host() -> Iterator[Namespace]:
    namespace = Namespace.new()
    yield namespace
    namespace.close()


@pytest.fixture
async def networks(host: Namespace, tmp_path: Path) -> AsyncIterator[Networks]:
    database = Database(tmp_path / "state.db")
    with host.entered():
        made = Networks(database, Events())
        await made.start()
    yield made
    await made.close()
    database.close()


def attachment(name: str, *on: str) -> Attachment:
    return Attachment(name, name, name, {network: EndpointRequest() for network in on})


def _held(networks: Networks, name: str) -> int:
    (pool,) = networks._pools[networks.get(name).id]
    return len(pool._taken)


async def test_an_attachment_that_nobody_waits_for_holds_nothing(networks: Networks, host: Namespace) -> None:
    await networks.create("net", pools=[Pool("10.9.0.0/24")])
    before, descriptors = _held(networks, "net"), len(os.listdir("/proc/self/fd"))
    for turns in range(12):
        task = asyncio.ensure_future(networks.attach(attachment("one", "net")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            os.close((await task).namespace)
            networks.detach("one")
        except asyncio.CancelledError:
            pass
    await networks._workshop.run(lambda: None)
    await asyncio.sleep(0)
    assert _held(networks, "net") == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_a_network_removed_while_a_container_comes(networks: Networks, host: Namespace) -> None:
    for _ in range(5):
        await networks.create("net", pools=[Pool("10.9.0.0/24")])
        attached, removed = await asyncio.gather(
            networks.attach(attachment("one", "net")), networks.remove("net"), return_exceptions=True
        )
        if isinstance(attached, BaseException):
            assert isinstance(attached, BoxshipError)
            assert not isinstance(removed, BaseException)
        else:
            assert isinstance(removed, BoxshipError)
            os.close(attached.namespace)
            networks.detach("one")
            await networks.remove("net")
        assert networks.sandbox("one") is None
    assert "br-" not in host.run("ip", "link")


async def test_many_at_once(networks: Networks, host: Namespace) -> None:
    await networks.create("net", pools=[Pool("10.9.0.0/24")])
    before = _held(networks, "net")

    async def one(number: int) -> str:
        sandbox = await networks.attach(attachment(f"c{number}", "net", "bridge"))
        os.close(sandbox.namespace)
        return sandbox.endpoints[0].ipv4

    addresses = await asyncio.gather(*(one(number) for number in range(40)))
    assert len(set(addresses)) == 40
    for number in range(40):
        networks.detach(f"c{number}")
    assert _held(networks, "net") == before

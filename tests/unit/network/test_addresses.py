from __future__ import annotations

import pytest

from boxship.errors import Conflict, Invalid
from boxship.network.addresses import DEFAULT_POOLS, AddressPool, mac_of, parse_address, parse_subnet, split_pools
from boxship.network.model import Pool


def taken(pool: AddressPool, count: int) -> list[str]:
    return [str(pool.take()) for _ in range(count)]


def test_addresses_in_turn_behind_the_gateway() -> None:
    pool = AddressPool(Pool("10.1.0.0/24"))
    assert str(pool.gateway) == "10.1.0.1"
    assert taken(pool, 3) == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]


def test_one_just_released_is_not_the_next() -> None:
    pool = AddressPool(Pool("10.1.0.0/29"))
    first = str(pool.take())
    pool.release(first)
    assert taken(pool, 5) == ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", first]


def test_all_are_given_out_and_then_none() -> None:
    pool = AddressPool(Pool("10.1.0.0/29", gateway="10.1.0.6", auxiliary={"printer": "10.1.0.3"}))
    assert taken(pool, 4) == ["10.1.0.1", "10.1.0.2", "10.1.0.4", "10.1.0.5"]
    with pytest.raises(Conflict, match="no available IPv4 addresses"):
        pool.take()
    pool.release("10.1.0.4")
    assert str(pool.take()) == "10.1.0.4"


def test_neither_the_network_nor_its_broadcast_is_given_out_of_a_range() -> None:
    low = AddressPool(Pool("10.1.0.0/24", gateway="10.1.0.200", ip_range="10.1.0.0/30"))
    assert taken(low, 3) == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
    with pytest.raises(Conflict):
        low.take()
    high = AddressPool(Pool("10.1.0.0/24", ip_range="10.1.0.252/30"))
    assert taken(high, 3) == ["10.1.0.252", "10.1.0.253", "10.1.0.254"]
    with pytest.raises(Conflict):
        high.take()


def test_one_asked_for() -> None:
    pool = AddressPool(Pool("10.1.0.0/24"))
    assert str(pool.take("10.1.0.99")) == "10.1.0.99"
    with pytest.raises(Conflict, match="Address already in use"):
        pool.take("10.1.0.99")
    with pytest.raises(Conflict, match="Address already in use"):
        pool.take("10.1.0.1")
    with pytest.raises(Invalid, match="does not belong to any of this network's subnets"):
        pool.take("10.2.0.1")
    with pytest.raises(Invalid, match="invalid IP address"):
        pool.take("10.1.0")


def test_one_in_use_from_before_a_restart() -> None:
    pool = AddressPool(Pool("10.1.0.0/24"))
    pool.claim("10.1.0.2")
    assert str(pool.take()) == "10.1.0.3"


def test_the_gateway_is_never_released() -> None:
    pool = AddressPool(Pool("10.1.0.0/30"))
    pool.release("10.1.0.1")
    assert taken(pool, 1) == ["10.1.0.2"]
    with pytest.raises(Conflict):
        pool.take()


def test_ipv6_of_any_size() -> None:
    pool = AddressPool(Pool("fd00::/64"))
    assert str(pool.gateway) == "fd00::1"
    assert taken(pool, 2) == ["fd00::2", "fd00::3"]
    assert str(AddressPool(Pool("fd00::/8")).take("fdff::1")) == "fdff::1"


@pytest.mark.parametrize(
    "pool",
    [
        Pool("nonsense"), Pool("10.1.0.0/33"), Pool("10.1.0.0/24", gateway="10.2.0.1"), Pool("10.1.0.0/24", gateway="x"),
        Pool("10.1.0.0/24", ip_range="10.1.1.0/25"), Pool("10.1.0.0/24", ip_range="10.1.0.0/16"),
        Pool("10.1.0.0/24", ip_range="fd00::/64"),
        Pool("10.1.0.0/24", auxiliary={"a": "10.9.0.1"}), Pool(""),
    ],
)  # fmt: skip
def test_pools_that_contradict_themselves(pool: Pool) -> None:
    with pytest.raises(Invalid):
        AddressPool(pool)


def test_host_bits_of_a_subnet_do_not_matter() -> None:
    assert str(parse_subnet("10.1.2.3/16")) == "10.1.0.0/16"


def test_hardware_addresses_as_docker_derives_them() -> None:
    assert mac_of(parse_address("172.17.0.2")) == "02:42:ac:11:00:02"


def test_default_pools() -> None:
    assert [str(subnet) for subnet in split_pools([])] == list(DEFAULT_POOLS)
    assert [str(subnet) for subnet in split_pools([("10.0.0.0/8", 10), ("192.168.0.0/23", 24)])] == [
        "10.0.0.0/10", "10.64.0.0/10", "10.128.0.0/10", "10.192.0.0/10", "192.168.0.0/24", "192.168.1.0/24",
    ]  # fmt: skip
    assert len(split_pools([("10.0.0.0/8", 30)])) == 4096
    for base, size in (("10.0.0.0/16", 8), ("10.0.0.0/16", 33), ("x", 24)):
        with pytest.raises(Invalid):
            split_pools([(base, size)])

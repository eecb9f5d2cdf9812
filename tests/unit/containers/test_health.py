"""From a probe to the health."""

from __future__ import annotations

from boxship.containers.health import after_probe
from boxship.containers.model import Health, HealthProbe


def told(codes: list[int], *, retries: int = 2, starting: bool = False) -> list[tuple[str, int]]:
    health, found = Health(), []
    for number, code in enumerate(codes):
        health = after_probe(health, HealthProbe(number, number, code, ""), retries, starting=starting)
        found.append((health.status, health.failing_streak))
    assert len(health.probes) <= 5
    return found


def test_failures_in_a_row() -> None:
    assert told([1, 0, 1, 1, 1, 0]) == [
        ("starting", 1), ("healthy", 0), ("healthy", 1), ("unhealthy", 2), ("unhealthy", 3), ("healthy", 0),
    ]  # fmt: skip


def test_three_where_nothing_is_said() -> None:
    assert [status for status, _ in told([1, 1, 1], retries=0)] == ["starting", "starting", "unhealthy"]


def test_while_it_starts_failures_do_not_count_until_it_has_been_healthy() -> None:
    assert told([1, 1, 1, 0, 1, 1], starting=True) == [
        ("starting", 0), ("starting", 0), ("starting", 0), ("healthy", 0), ("healthy", 1), ("unhealthy", 2),
    ]  # fmt: skip

"""What follows an exit, and the start of the daemon."""

from __future__ import annotations

import pytest

from boxship.containers.config import RestartPolicy
from boxship.containers.restart import FIRST_DELAY, LONGEST_DELAY, Decision, after_daemon_start, after_exit


def decide(
    name: str, code: int = 1, *, limit: int = 0, by_user: bool = False, count: int = 0, ran: float = 0.0, last: float = 0.0
) -> Decision:
    policy = RestartPolicy(name=name, maximum_retry_count=limit)
    return after_exit(policy, code, stopped_by_user=by_user, count=count, ran_seconds=ran, last_delay=last)


@pytest.mark.parametrize(
    ("name", "code", "restart"),
    [("no", 1, False), ("", 1, False), ("always", 0, True), ("unless-stopped", 0, True), ("on-failure", 0, False),
     ("on-failure", 1, True)],
)  # fmt: skip
def test_policies(name: str, code: int, restart: bool) -> None:
    assert decide(name, code).restart is restart
    assert not decide(name, code, by_user=True).restart


def test_tries_are_counted() -> None:
    assert [decide("on-failure", limit=2, count=count).restart for count in range(4)] == [True, True, False, False]


def test_delays_double_up_to_a_limit_and_begin_again_after_a_long_run() -> None:
    delays = [decide("always").delay]
    while delays[-1] < LONGEST_DELAY:
        delays.append(decide("always", last=delays[-1]).delay)
    assert delays[:3] == [FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4]
    assert delays[-1] == LONGEST_DELAY == decide("always", last=LONGEST_DELAY).delay
    assert decide("always", last=LONGEST_DELAY, ran=10.0).delay == FIRST_DELAY


@pytest.mark.parametrize(
    ("name", "by_user", "restart"),
    [("always", True, True), ("unless-stopped", True, False), ("unless-stopped", False, True), ("on-failure", False, True),
     ("on-failure", True, False), ("no", False, False)],
)  # fmt: skip
def test_with_the_daemon(name: str, by_user: bool, restart: bool) -> None:
    assert after_daemon_start(RestartPolicy(name=name), 1, stopped_by_user=by_user, count=0) is restart

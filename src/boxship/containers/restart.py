"""The restart policy: a pure rule from an exit to what comes next."""

from __future__ import annotations

from dataclasses import dataclass

from boxship.containers.config import RestartPolicy

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
SETTLED_SECONDS = 10.0
"""A container that has run this long begins again with the first delay."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to start again, and after how many seconds."""

    restart: bool
    delay: float = 0.0


def after_exit(
    policy: RestartPolicy, code: int, *, stopped_by_user: bool, count: int, ran_seconds: float, last_delay: float
) -> Decision:
    """What follows an exit. `count` is how often it has been restarted already."""
    wanted = {
        "always": not stopped_by_user,
        "unless-stopped": not stopped_by_user,
        "on-failure": code != 0 and not stopped_by_user and (policy.maximum_retry_count == 0 or count < policy.maximum_retry_count),
    }.get(policy.name, False)
    if not wanted:
        return Decision(False)
    if ran_seconds >= SETTLED_SECONDS or not last_delay:
        return Decision(True, FIRST_DELAY)
    return Decision(True, min(last_delay * 2, LONGEST_DELAY))


def after_daemon_start(policy: RestartPolicy, code: int, *, stopped_by_user: bool, count: int) -> bool:
    """Whether a container that has run before, and does not now, is to be started with the engine."""
    if policy.name == "always":
        return True
    if policy.name == "unless-stopped":
        return not stopped_by_user
    tries_left = policy.maximum_retry_count == 0 or count < policy.maximum_retry_count
    return policy.name == "on-failure" and code != 0 and not stopped_by_user and tries_left

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


def after_daemon_start(policy: RestartPolicy, *, was_running: bool, stopped_by_user: bool) -> bool:
    """Whether a container that does not run is to be started with the engine."""
    if policy.name == "always":
        return was_running or stopped_by_user
    if policy.name == "unless-stopped":
        return was_running and not stopped_by_user
    return policy.name == "on-failure" and was_running and not stopped_by_user

"""Users and groups of an image, from its /etc/passwd and /etc/group (passwd(5), group(5))."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boxship.runtime.failure import StartFailure

_MAX_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(user: str, additional: Sequence[str], passwd: Iterable[str], group: Iterable[str]) -> Identity:
    """Read `user[:group]`, each a name or a number; raises `StartFailure` with Docker's words."""
    user_part, _, group_part = user.partition(":")
    users = [fields for line in passwd if len(fields := line.rstrip("\n").split(":")) >= 6]
    groups = [fields for line in group if len(fields := line.rstrip("\n").split(":")) >= 4]
    entry = _find(user_part or "0", users)
    if entry is not None and _is_number(entry[2]) and _is_number(entry[3]):
        uid, gid, home, name = int(entry[2]), int(entry[3]), entry[5] or "/", entry[0]
    elif _is_number(user_part or "0"):
        uid, gid, home, name = _number(user_part or "0"), 0, "/", ""
    else:
        raise StartFailure("user", f"unable to find user {user_part}: no matching entries in passwd file")
    supplementary: list[int] = []
    if group_part:
        gid = _group_id(group_part, groups)
    elif name:
        supplementary = [int(g[2]) for g in groups if name in g[3].split(",") and _is_number(g[2])]
    for extra in additional:
        supplementary.append(_group_id(extra, groups))
    ordered = tuple(dict.fromkeys([gid, *supplementary]))
    return Identity(uid, gid, ordered, home)


def _find(name: str, entries: list[list[str]]) -> list[str] | None:
    by_name = next((entry for entry in entries if entry[0] == name), None)
    if by_name is not None or not _is_number(name):
        return by_name
    return next((entry for entry in entries if entry[2] == name), None)


def _group_id(name: str, groups: list[list[str]]) -> int:
    entry = _find(name, groups)
    if entry is not None and _is_number(entry[2]):
        return int(entry[2])
    if _is_number(name):
        return _number(name)
    raise StartFailure("user", f"unable to find group {name}: no matching entries in group file")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int:
    value = int(text)
    if value > _MAX_ID:
        raise StartFailure("user", f"uids and gids must be in range 0-{_MAX_ID}")
    return value

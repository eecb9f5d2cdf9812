"""The one family of errors.

    BoxshipError
    ├── NotFound        the thing named does not exist
    ├── AlreadyExists   a thing of that name exists already
    ├── Invalid         the request can never succeed as it stands
    ├── Conflict        the request is sound, the state of the thing forbids it
    ├── Denied          the caller may not do this, or must say who it is
    ├── Unavailable     something outside failed or timed out; trying again may help
    ├── Unsupported     Boxship does not do this; the message names the option
    └── Internal        a defect or a broken host

Every boundary (Engine API, registry, command line) owns one table from these kinds to its own codes.
A message is lower-case, names the thing and what would be right, and ends without a full stop; where an
established client compares the text (as the docker command does), the message is the established one.
"""

from __future__ import annotations

import errno


class BoxshipError(Exception):
    """Base of all errors that a caller is meant to see; `hint` says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotFound(BoxshipError):
    """Raised when the thing named does not exist."""


class AlreadyExists(BoxshipError):
    """Raised when a thing of that name exists already."""


class Invalid(BoxshipError):
    """Raised when the request can never succeed as it stands."""


class Conflict(BoxshipError):
    """Raised when the request is sound but the present state of the thing forbids it."""


class Denied(BoxshipError):
    """Raised when the caller may not do this, or has not said who it is."""


class Unavailable(BoxshipError):
    """Raised when something outside failed or timed out, so that trying again may help."""


class Unsupported(BoxshipError):
    """Raised when Boxship does not do what an option asks for; the message names the option."""


class Internal(BoxshipError):
    """Raised for a defect of ours or a broken host."""


_BY_ERRNO: dict[int, type[BoxshipError]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: Invalid,
    errno.EEXIST: AlreadyExists,
    errno.EACCES: Denied,
    errno.EPERM: Denied,
    errno.EBUSY: Conflict,
    errno.EINVAL: Invalid,
    errno.ELOOP: Invalid,
    errno.ENAMETOOLONG: Invalid,
    errno.ENOSPC: Unavailable,
    errno.EDQUOT: Unavailable,
    errno.EMFILE: Unavailable,
    errno.ENOSYS: Unsupported,
    errno.EOPNOTSUPP: Unsupported,
}


def from_os_error(error: OSError, doing: str) -> BoxshipError:
    """Translate an `OSError` once: `doing` says what was tried, such as "open the layer"."""
    kind = _BY_ERRNO.get(error.errno or 0, Internal)
    where = f" {error.filename}" if error.filename else ""
    return kind(f"{doing}{where}: {(error.strerror or str(error)).lower()}")

"""TLS towards a registry: the system's authorities, and what `certs.d/<host:port>/` adds to them.

*.crt           authorities that vouch for the registry
*.cert, *.key   a client certificate and its key
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from boxship.errors import Invalid

Signature = tuple[tuple[str, int, int], ...]


def signature(roots: Sequence[Path], host: str) -> Signature:
    """What tells whether the files for a host have changed."""
    found = []
    for file in _files(roots, host):
        try:
            status = file.stat()
        except OSError as error:
            raise _unusable(file, error) from error
        found.append((str(file), status.st_mtime_ns, status.st_size))
    return tuple(found)


def context(roots: Sequence[Path], host: str, *, verified: bool) -> ssl.SSLContext:
    """How to speak TLS with a host; raises `Invalid` for files that cannot be used."""
    if verified:
        made = ssl.create_default_context()
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    files = _files(roots, host)
    for file in files:
        try:
            if file.suffix == ".crt":
                made.load_verify_locations(file)
            elif file.suffix == ".cert":
                key = file.with_suffix(".key")
                if key not in files:
                    raise Invalid(f"missing key {key.name} for client certificate {file.name}",
                                  hint="authorities must use the extension .crt")  # fmt: skip
                made.load_cert_chain(file, key, password=_no_password)
            elif file.with_suffix(".cert") not in files:
                raise Invalid(f"missing client certificate {file.with_suffix('.cert').name} for key {file.name}")
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _unusable(file, error) from error
    return made


def _no_password() -> str:
    """Without this, OpenSSL asks the terminal for the password of an encrypted key."""
    raise ValueError("the key is encrypted")


def _files(roots: Sequence[Path], host: str) -> list[Path]:
    if "/" in host or host.startswith("."):
        return []
    found: list[Path] = []
    for root in roots:
        try:
            found += sorted(file for file in (root / host).iterdir() if file.suffix in (".crt", ".cert", ".key"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unusable(root / host, error) from error
    return found


def _unusable(file: Path, error: Exception) -> Invalid:
    return Invalid(f"cannot use {file}: {getattr(error, 'strerror', None) or error}")

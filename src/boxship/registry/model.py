"""What the registry client is given and tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks: name and password, or one of the tokens that a login or a client gave."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server_address: str = ""


Progress = Callable[[dict[str, object]], None]
"""Takes messages as the Engine API has them: `status`, `id`, `progressDetail`, `aux`."""

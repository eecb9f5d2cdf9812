"""The keys that detach, as they are typed."""

from __future__ import annotations

import pytest

from boxship.cli.stdio import DetachKeys


@pytest.mark.parametrize(
    ("keys", "typed", "expected"),
    [
        ("", [b"ls\n\x10\x11"], True), ("", [b"\x10", b"\x11"], True), ("", [b"\x10", b"x", b"\x11"], False),
        ("ctrl-@,a,ctrl-\\", [b"\x00", b"a\x1c"], True), ("a", [b"b"], False), ("a", [b"ba"], True),
    ],
)  # fmt: skip
def test_they_are_seen_in_pieces_too(keys: str, typed: list[bytes], expected: bool) -> None:
    watch = DetachKeys(keys)
    for data in typed:
        watch.see(data)
    assert watch.typed is expected

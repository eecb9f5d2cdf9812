"""`--change`: the Dockerfile instructions that alter a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from boxship.errors import Invalid
from boxship.images.changes import apply_changes
from boxship.oci.image_config import ExecutionConfig


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ('CMD ["a", "b c"]', "cmd", ["a", "b c"]),
        ("CMD a b", "cmd", ["/bin/sh", "-c", "a b"]),
        ("cmd a", "cmd", ["/bin/sh", "-c", "a"]),
        ('ENTRYPOINT ["/run"]', "entrypoint", ["/run"]),
        ("ENTRYPOINT", "entrypoint", []),
        ("ENV A=1 B='two words'", "env", ["A=1", "B=two words"]),
        ("ENV A one value", "env", ["A=one value"]),
        ("LABEL a=b c=d", "labels", {"a": "b", "c": "d"}),
        ("EXPOSE 80 53/udp", "exposed_ports", {"80/tcp": {}, "53/udp": {}}),
        ('VOLUME ["/a b"]', "volumes", {"/a b": {}}),
        ("VOLUME /a /b", "volumes", {"/a": {}, "/b": {}}),
        ("USER 1000:1000", "user", "1000:1000"),
        ("WORKDIR /srv", "working_dir", "/srv"),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("ONBUILD RUN x", "on_build", ["RUN x"]),
    ],
)
def test_each_instruction(change: str, field: str, expected: Any) -> None:
    assert getattr(apply_changes(ExecutionConfig(), [change]), field) == expected


def test_health_checks() -> None:
    for change, test in (("HEALTHCHECK NONE", ["NONE"]), ("HEALTHCHECK CMD a b", ["CMD-SHELL", "a b"]),
                         ('HEALTHCHECK CMD ["a"]', ["CMD", "a"])):  # fmt: skip
        health = apply_changes(ExecutionConfig(), [change]).healthcheck
        assert health is not None
        assert health.test == test


def test_later_changes_add_to_earlier_ones() -> None:
    config = apply_changes(ExecutionConfig(env=["A=0", "Z=9"]), ["ENV A=1", "ENV B=2", "LABEL x=1", "LABEL y=2", "LABEL x=3"])
    assert config.env == ["A=1", "Z=9", "B=2"]
    assert config.labels == {"x": "3", "y": "2"}


@pytest.mark.parametrize("change", ["FROM x", "RUN x", "", "NONSENSE", 'CMD ["a"', "CMD [1]", "ENV", "ENV A='b", "LABEL plain",
                                    "HEALTHCHECK maybe"])  # fmt: skip
def test_what_is_no_change_is_named(change: str) -> None:
    with pytest.raises(Invalid):
        apply_changes(ExecutionConfig(), [change])

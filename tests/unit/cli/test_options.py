"""Values as options give them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxship.cli.mounts import mount, volumes
from boxship.cli.ports import ports
from boxship.cli.values import environment, nanoseconds, parse_size, ulimit
from boxship.errors import Invalid


@pytest.mark.parametrize(
    ("text", "port", "binding"),
    [
        ("8080:80", "80/tcp", ("", "8080")),
        ("80", "80/tcp", ("", "")),
        ("127.0.0.1:8080:80/udp", "80/udp", ("127.0.0.1", "8080")),
        ("127.0.0.1::80", "80/tcp", ("127.0.0.1", "")),
        ("[::1]:8080:80", "80/tcp", ("::1", "8080")),
        ("8000-8009:80", "80/tcp", ("", "8000-8009")),
        ("published=8080,target=80,protocol=udp", "80/udp", ("", "8080")),
    ],
)
def test_ports(text: str, port: str, binding: tuple[str, str]) -> None:
    opened, bindings = ports([text], [])
    assert opened == {port: {}}
    assert bindings == {port: [{"HostIp": binding[0], "HostPort": binding[1]}]}


@pytest.mark.parametrize("text", ["", "x:80", "80:x", "1-2:1-3", "80/icmp", "70000:80", "1:2:3:4:"])
def test_a_wrong_port_is_told(text: str) -> None:
    with pytest.raises(Invalid):
        ports([text], [])


def test_volumes() -> None:
    assert volumes(["/a:/b:ro", "data:/d", "/anonymous"]) == (["/a:/b:ro", "data:/d"], {"/anonymous": {}})
    with pytest.raises(Invalid, match="must be absolute"):
        volumes(["relative"])


def test_mounts() -> None:
    found = mount("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave")
    assert found == {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}}
    assert mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770")["TmpfsOptions"] == {"SizeBytes": 1 << 20, "Mode": 0o1770}
    for wrong in ("type=bind,src=/a", "type=bind,dst=/b,nosuch=1", "type=bind,dst=/b,tmpfs-size=1", "dst"):
        with pytest.raises(Invalid):
            mount(wrong)


def test_environment_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=1\nB=with = and spaces \nFROM_HERE\nNOT_SET\n")
    monkeypatch.setenv("FROM_HERE", "x")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert environment(["A=2"], [str(file)]) == ["A=1", "B=with = and spaces ", "FROM_HERE=x", "A=2"]
    with pytest.raises(Invalid, match="no such file"):
        environment([], [str(tmp_path / "missing")])


def test_sizes_durations_limits() -> None:
    assert [parse_size(text) for text in ("1", "1k", "1.5m", "2GiB", "-1")] == [1, 1024, 1572864, 2 << 30, -1]
    assert nanoseconds("1m30s") == 90 * 10**9
    assert ulimit("nofile=1:2") == {"Name": "nofile", "Soft": 1, "Hard": 2}


@given(st.text(max_size=40))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    for read in (parse_size, nanoseconds, ulimit, mount, lambda t: ports([t], []), lambda t: volumes([t])):
        with contextlib.suppress(Invalid):
            read(text)

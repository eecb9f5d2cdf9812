"""Who a process is: users and groups from the image's own files."""

from __future__ import annotations

import pytest
from tests.support.engine import Engine

IDS = ("busybox", "sh", "-c", "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' ') $HOME")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("root", "0 0 0 /root"),
        ("user", "1000 1000 1000 2000 /home/user"),
        ("1000", "1000 1000 1000 2000 /home/user"),
        ("user:extra", "1000 2000 2000 /home/user"),
        ("user:0", "1000 0 0 /home/user"),
        ("1234", "1234 0 0 /"),
        ("1234:5678", "1234 5678 5678 /"),
        (":extra", "0 2000 2000 /root"),
    ],
)
def test_user(engine: Engine, user: str, expected: str) -> None:
    assert engine.out("run", "--rm", "-u", user, *IDS) == expected


def test_additional_groups(engine: Engine) -> None:
    assert engine.out("run", "--rm", "--group-add", "extra", "--group-add", "77", "-u", "1234", *IDS) == "1234 0 0 77 2000 /"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-u", "nobody-here"), "unable to find user nobody-here: no matching entries in passwd file"),
        (("-u", "user:nogroup"), "unable to find group nogroup: no matching entries in group file"),
        (("--group-add", "nogroup"), "unable to find group nogroup: no matching entries in group file"),
        (("-u", "99999999999"), "uids and gids must be in range 0-2147483647"),
    ],
)
def test_unknown(engine: Engine, options: tuple[str, ...], message: str) -> None:
    done = engine.docker("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode == 125
    assert message in done.stderr


def test_another_user_has_no_capabilities(engine: Engine) -> None:
    script = ("busybox", "grep", "^Cap\\(Eff\\|Prm\\|Amb\\)", "/proc/self/status")
    assert {line.split()[1] for line in engine.out("run", "--rm", "-u", "user", *script).splitlines()} == {"0" * 16}


def test_another_user_can_write_to_its_output(engine: Engine) -> None:
    script = "echo out >/dev/stdout; echo err >/dev/stderr"
    done = engine.docker("run", "--rm", "-u", "user", "busybox", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_the_images_user(engine: Engine) -> None:
    engine.docker("create", "--name", "it", "busybox")
    engine.docker("commit", "--change", "USER user:extra", "--change", "WORKDIR /home/user", "it", "as-user")
    try:
        assert engine.out("run", "--rm", "as-user", "sh", "-c", "id -un; id -gn; pwd").split() == ["user", "extra", "/home/user"]
        assert engine.out("run", "--rm", "-u", "0", "as-user", "id", "-un") == "root"
    finally:
        engine.docker("rm", "it")
        engine.docker("rmi", "as-user")

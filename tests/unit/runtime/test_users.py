from __future__ import annotations

import pytest

from boxship.runtime.failure import StartFailure
from boxship.runtime.users import Identity, resolve

PASSWD = [
    "root:x:0:0:root:/root:/bin/sh", "# a comment", "", "broken", "user:x:1000:1000::/home/user:/bin/sh",
    "nohome:x:5:6:::/bin/sh",
    "7:x:70:71::/seven:", "many:x:8:8:::", "bad:x:notanumber:0::/:",
]  # fmt: skip
GROUP = ["root:x:0:", "user:x:1000:", "wheel:x:10:many,user", "extra:x:20:many", "broken", "9:x:90:many", "bad:x:no:many"]


@pytest.mark.parametrize(
    ("user", "additional", "expected"),
    [
        ("", [], Identity(0, 0, (0,), "/root")),
        ("root", [], Identity(0, 0, (0,), "/root")),
        ("user", [], Identity(1000, 1000, (1000, 10), "/home/user")),
        ("1000", [], Identity(1000, 1000, (1000, 10), "/home/user")),
        ("user:extra", [], Identity(1000, 20, (20,), "/home/user")),
        ("user:33", [], Identity(1000, 33, (33,), "/home/user")),
        ("4242", [], Identity(4242, 0, (0,), "/")),
        ("4242:4343", [], Identity(4242, 4343, (4343,), "/")),
        (":wheel", [], Identity(0, 10, (10,), "/root")),
        ("nohome", [], Identity(5, 6, (6,), "/")),
        ("7", [], Identity(70, 71, (71,), "/seven")),  # a name made of digits goes before the number
        ("70", [], Identity(70, 71, (71,), "/seven")),
        ("many", [], Identity(8, 8, (8, 10, 20, 90), "/")),
        ("user", ["extra", "55", "10"], Identity(1000, 1000, (1000, 10, 20, 55), "/home/user")),
        ("2147483647", [], Identity(2147483647, 0, (0,), "/")),
    ],
)
def test_who_a_process_runs_as(user: str, additional: list[str], expected: Identity) -> None:
    assert resolve(user, additional, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    ("user", "additional", "words"),
    [
        ("ghost", [], "unable to find user ghost: no matching entries in passwd file"),
        ("-1", [], "unable to find user -1"),
        ("bad", [], "unable to find user bad"),
        ("²", [], "unable to find user ²"),
        ("root:ghosts", [], "unable to find group ghosts: no matching entries in group file"),
        ("root", ["ghosts"], "unable to find group ghosts"),
        ("2147483648", [], "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", [], "uids and gids must be in range"),
        ("a:b:c", [], "unable to find user a"),
    ],
)
def test_who_cannot_be_found(user: str, additional: list[str], words: str) -> None:
    with pytest.raises(StartFailure) as caught:
        resolve(user, additional, PASSWD, GROUP)
    assert caught.value.stage == "user"
    assert words in caught.value.message


def test_without_any_files_numbers_do(tmp_path: object) -> None:
    assert resolve("3:4", [], [], []) == Identity(3, 4, (4,), "/")
    assert resolve("", [], [], []) == Identity(0, 0, (0,), "/")

"""What every test is held to: nothing of it may be left on the host.

Before and after each test, and around the whole session, this compares what the host holds: mounts, control
groups, links, nftables tables, processes, files in /run and /tmp. What a fixture of a wider scope holds is
there before the test begins, and so is no leak of the test.

Daemons that somebody else runs on the same host are told apart by their data root and passed over.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import re
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import hypothesis
import pytest

from boxship.network.links import list_links, open_route
from boxship.syscalls.netlink import NETLINK_NETFILTER, Message, Netlink, attributes

# a change is judged by the same examples each time; whoever works on it meets new ones with each run
hypothesis.settings.register_profile("ci", derandomize=True, database=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

_GRACE_SECONDS = 3.0
"""How long the kernel may take to let go of what has ended."""

_SPARES = 6
"""How many ports a daemon keeps ready on its bridge."""

_PR_SET_CHILD_SUBREAPER = 36
_GET_TABLE = 10 << 8 | 1
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Host:
    """What stands on the host at one moment, each as printable names."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    processes: frozenset[str]
    files: frozenset[str]

    def beyond(self, before: Host) -> list[str]:
        """What is here and was not there."""
        found = []
        for field in fields(self):
            new = getattr(self, field.name) - getattr(before, field.name)
            found += [f"{field.name}: {name}" for name in sorted(new)]
        return found


def look() -> Host:
    strangers = _strangers()
    return Host(_mounts(), _cgroups(strangers), _links(strangers), _tables(strangers), _children(), _files())


def _mounts() -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    own = Path(tempfile.gettempdir()).parent
    found = [(fields[4], fields[0]) for fields in map(str.split, lines)]
    # other sessions of these tests have directories beside this one's
    return frozenset(f"{path} (mount {number})" for path, number in found
                     if path.startswith(f"{own}/") or not path.startswith(f"{own.parent}/pytest-"))  # fmt: skip


def _cgroups(strangers: set[str]) -> frozenset[str]:
    found = set()
    for hierarchy in os.scandir(_CGROUPS):
        if not hierarchy.is_dir(follow_symlinks=False):
            continue
        if hierarchy.name.startswith("boxship"):
            found.add(hierarchy.path)
        found |= {entry.path for entry in os.scandir(hierarchy.path) if entry.name.startswith("boxship")}
    return frozenset(path for path in found if os.path.basename(path) not in strangers and not _of_another_session(path))


def _of_another_session(cgroup: str) -> bool:
    """Whether a control group is one that tests/support/runtime.py makes, of another process."""
    match = re.search(r"/boxship-test-(\d+)-", cgroup)
    return match is not None and int(match[1]) != os.getpid()


def _links(strangers: set[str]) -> frozenset[str]:
    route = open_route()
    try:
        names = set(list_links(route))
    finally:
        route.close()
    mine = {name for name in names if name not in strangers}
    if strangers:
        # whose a user-defined bridge is cannot be told from here
        mine = {name for name in mine if not _stands_on(name, strangers)}
    return frozenset(_without_spares(mine))


def _without_spares(links: set[str]) -> set[str]:
    """The ports of a daemon's own bridge come and go, as it keeps some ready: only what is beyond those counts."""
    found, ports = set(), Counter[str]()
    for name in links:
        bridge = _master(name)
        if bridge.startswith("boxship"):
            ports[bridge] += 1
        else:
            found.add(name)
    return found | {f"{bridge} port {number}" for bridge, count in ports.items() for number in range(_SPARES, count)}


def _master(link: str) -> str:
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{link}/master"))
    except OSError:
        return ""


def _stands_on(link: str, strangers: set[str]) -> bool:
    master = _master(link)
    if not master:
        return link.startswith(("br-", "veth"))
    return master in strangers or master.startswith("br-")


def _tables(strangers: set[str]) -> frozenset[str]:
    netfilter = Netlink(NETLINK_NETFILTER)
    try:
        answers = netfilter.dump(Message(_GET_TABLE, 0, struct.pack(">BBH", 0, 0, 0)))
    finally:
        netfilter.close()
    found = [(body[0], attributes(body[4:])[1].rstrip(b"\0").decode()) for _, body in answers]
    return frozenset(f"{name} (family {family})" for family, name in found if name not in strangers)


def _children() -> frozenset[str]:
    """Every process below this one: orphans come to it, as it is their subreaper."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
                with contextlib.suppress(OSError):
                    found.add(f"{pid} {Path(f'/proc/{pid}/comm').read_text().strip()}")
    return frozenset(found)


def _files() -> frozenset[str]:
    own = tempfile.gettempdir()
    found = {os.path.join(own, name) for name in os.listdir(own)}
    for directory in ("/run", "/tmp", "/var/lib"):
        found |= {f"{directory}/{name}" for name in os.listdir(directory) if name.startswith("boxship")}
    return frozenset(found)


def _strangers() -> set[str]:
    """What the daemons that are not descended from this process call their bridges, groups and tables."""
    names: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if not any(re.fullmatch(r"boxship(\.daemon)?|.*/boxship", argument) for argument in arguments[:4]):
            continue
        if _descends(int(pid)):
            continue
        root = next((after for option, after in itertools.pairwise(arguments) if option == "--data-root"), "")
        if root:
            names.add(f"boxship-{hashlib.sha256(root.encode()).hexdigest()[:6]}")
        else:
            names |= {"boxship", "boxship0"}
    return names


def _descends(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def _reap(left: list[str]) -> None:
    """Orphans that have ended wait for their subreaper."""
    for line in left:
        if line.startswith("processes: "):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(line.split()[1]), os.WNOHANG)


def left_behind(before: Host) -> list[str]:
    """What is still there that was not, once the kernel has had its time."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while left := look().beyond(before):
        _reap(left)
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


@pytest.fixture(scope="session", autouse=True)
def _clean_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    own = tmp_path_factory.mktemp("t", numbered=False)
    os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    before = look()
    yield
    if left := left_behind(before):
        pytest.fail("the session left behind:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def _clean_test(_clean_session: None) -> Iterator[None]:
    before = look()
    yield
    if left := left_behind(before):
        pytest.fail("the test left behind:\n" + "\n".join(left), pytrace=False)

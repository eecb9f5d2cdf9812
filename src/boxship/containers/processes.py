"""What the processes of a container are and use: `top` and `stats`."""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boxship.containers.model import Container
from boxship.containers.service import Containers
from boxship.errors import Conflict, Invalid
from boxship.runtime.cgroups import CgroupStats

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    uid: int
    started: float
    cpu_seconds: int
    command: str
    arguments: str
    terminal: str
    memory_kib: int
    virtual_kib: int
    state: str
    nice: int
    threads: int


def _read(pid: int, boot: float) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    terminal = int(fields[4])
    major, minor = os.major(terminal), os.minor(terminal)
    shown = f"pts/{minor}" if 136 <= major <= 143 else "?"
    return Process(
        pid, int(fields[1]), uid, boot + int(fields[19]) / _TICKS, (int(fields[11]) + int(fields[12])) // _TICKS, name,
        arguments or f"[{name}]", shown, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") // 1024, int(fields[20]) // 1024,
        fields[0], int(fields[16]), int(fields[17]),
    )  # fmt: skip


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _clock(started: float) -> str:
    age = time.time() - started
    return time.strftime("%H:%M" if age < 86400 else "%b%d", time.localtime(started))


def _duration(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}:{seconds % 60:02}"


_COLUMNS: dict[str, tuple[str, Callable[[Process], str]]] = {
    "uid": ("UID", lambda p: _user(p.uid)),
    "user": ("USER", lambda p: _user(p.uid)),
    "euser": ("EUSER", lambda p: _user(p.uid)),
    "ruser": ("RUSER", lambda p: _user(p.uid)),
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: str(p.parent)),
    "c": ("C", lambda p: str(_percent(p))),
    "pcpu": ("%CPU", lambda p: f"{_percent(p):.1f}"),
    "%cpu": ("%CPU", lambda p: f"{_percent(p):.1f}"),
    "%mem": ("%MEM", lambda p: "0.0"),
    "stime": ("STIME", lambda p: _clock(p.started)),
    "start": ("START", lambda p: _clock(p.started)),
    "tty": ("TTY", lambda p: p.terminal),
    "tt": ("TT", lambda p: p.terminal),
    "time": ("TIME", lambda p: _duration(p.cpu_seconds)),
    "etime": ("ELAPSED", lambda p: _duration(int(time.time() - p.started))),
    "cmd": ("CMD", lambda p: p.arguments),
    "command": ("COMMAND", lambda p: p.arguments),
    "args": ("COMMAND", lambda p: p.arguments),
    "comm": ("COMMAND", lambda p: p.command),
    "ucmd": ("CMD", lambda p: p.command),
    "rss": ("RSS", lambda p: str(p.memory_kib)),
    "vsz": ("VSZ", lambda p: str(p.virtual_kib)),
    "stat": ("STAT", lambda p: p.state),
    "s": ("S", lambda p: p.state),
    "state": ("S", lambda p: p.state),
    "ni": ("NI", lambda p: str(p.nice)),
    "nlwp": ("NLWP", lambda p: str(p.threads)),
}
_FULL = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"]
_BSD = ["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command"]


def _percent(process: Process) -> float:
    age = max(1.0, time.time() - process.started)
    return min(99.0, 100 * process.cpu_seconds / age)


def columns(arguments: str) -> list[str]:
    """The columns that arguments of ps(1) ask for; raises `Invalid` for those not known here."""
    words = arguments.split()
    chosen: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word in ("-o", "-O", "o", "--format"):
            index += 1
            word = "-o" + (words[index] if index < len(words) else "")
        if word.startswith(("-o", "o")) and len(word) > 2:
            for name in word.lstrip("-")[1:].split(","):
                key = name.partition("=")[0]
                if key not in _COLUMNS:
                    raise Invalid(f'ps column "{key}" is not supported', hint=f"one of {', '.join(_COLUMNS)}")
                chosen.append(key)
        elif word in ("aux", "axu", "-aux"):
            chosen = chosen or list(_BSD)
        elif word not in ("-ef", "-e", "-f", "-A", "ax", "-ax", "-eF"):
            raise Invalid(f"ps option {word!r} is not supported", hint="-ef, aux, or -o with columns")
        index += 1
    return chosen or list(_FULL)


def top(containers: Containers, name: str, arguments: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows, a row a process; raises `Conflict` where the container does not run."""
    container = containers.get(name)
    if not container.state.running:
        raise Conflict(f"container {container.id} is not running")
    chosen = columns(arguments)
    boot = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    found = [_read(pid, boot) for pid in containers.cgroups.processes(containers.cgroup(container))]
    containers.publish("top", container)
    rows = [[_COLUMNS[key][1](process) for key in chosen] for process in found if process is not None]
    return [_COLUMNS[key][0] for key in chosen], rows


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a container's use; `system_cpu` is the host's, in nanoseconds."""

    time_ns: int
    cgroup: CgroupStats
    system_cpu: int
    networks: dict[str, tuple[int, ...]]


def read_stats(containers: Containers, container: Container) -> Reading:
    stats = containers.cgroups.stats(containers.cgroup(container))
    networks: dict[str, tuple[int, ...]] = {}
    if container.state.pid and container.host.network_mode != "host":
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{container.state.pid}/net/dev").read_text().splitlines()[2:]:
                interface, _, rest = line.partition(":")
                values = [int(part) for part in rest.split()]
                if interface.strip() != "lo":
                    networks[interface.strip()] = (*values[:4], *values[8:12])
    total = 0
    with contextlib.suppress(OSError):
        with open("/proc/stat") as file:
            total = sum(int(part) for part in file.readline().split()[1:9]) * (1_000_000_000 // _TICKS)
    return Reading(time.time_ns(), stats, total, networks)

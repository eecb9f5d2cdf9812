"""From the clone to the exec: what the child of a start or an exec does. Nothing here returns to the keeper."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import stat
from dataclasses import dataclass
from typing import Any, NoReturn

from boxship.runtime.container import devices, mounts, reaper, sysctls, terminal
from boxship.runtime.container.identity import Confinement, resolve_user, set_limits
from boxship.runtime.failure import StartFailure, describe
from boxship.syscalls import mount as m
from boxship.syscalls import namespaces as ns
from boxship.syscalls import process as p
from boxship.syscalls.libc import LIBC, check

Spec = dict[str, Any]

JOINED = {
    "network": ns.CLONE_NEWNET,
    "ipc": ns.CLONE_NEWIPC,
    "uts": ns.CLONE_NEWUTS,
    "mount": ns.CLONE_NEWNS,
    "cgroup": ns.CLONE_NEWCGROUP,
    "pid": ns.CLONE_NEWPID,
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the child gets from the keeper: `stdio` is None where the process has a terminal; `files` is RLIMIT_NOFILE."""

    channel: socket.socket
    joins: list[str]
    stdio: tuple[int, int, int] | None
    seccomp: bytes | None
    staging: str
    files: tuple[int, int]


def become_container(spec: Spec, root: Spec, wiring: Wiring, netns: int | None, *, init: bool) -> NoReturn:
    """Set the container up around this process and exec its program."""
    try:
        _prepare(wiring, spec["process"])
        namespaces = {entry["type"]: entry.get("path") for entry in spec["linux"]["namespaces"]}
        _join(namespaces, netns)
        if "cgroup" in namespaces and not namespaces["cgroup"]:
            ns.unshare(ns.CLONE_NEWCGROUP)
        m.mount("", "/", None, m.MS_REC | m.MS_SLAVE)
        root_descriptor = mounts.mount_root(root, wiring.staging)
        mounts.mount_all(root_descriptor, spec.get("mounts") or [])
        devices.make_devices(root_descriptor, spec["linux"].get("devices") or [])
        sysctls.write(root_descriptor, spec["linux"].get("sysctl") or {})
        process = spec["process"]
        tty = -1
        if process.get("terminal"):
            tty = _terminal(root_descriptor, wiring, process, console=True)
        mounts.mask_paths(root_descriptor, spec["linux"].get("maskedPaths") or [], spec["linux"].get("readonlyPaths") or [])
        if "uts" in namespaces and not namespaces["uts"]:
            _name_host(spec.get("hostname") or "", spec.get("domainname") or "")
        confinement = Confinement(process, wiring.seccomp)
        p.pivot_root(root_descriptor)
        if (spec.get("root") or {}).get("readonly"):
            m.set_attributes(root_descriptor, add=m.MOUNT_ATTR_RDONLY)
        os.close(root_descriptor)
        _run(process, confinement, wiring, tty, init=init)
    except StartFailure as failure:
        _report(wiring.channel, failure)
    except OSError as error:
        _report(wiring.channel, StartFailure("namespace", describe(error), error.errno or 0))
    except BaseException as error:
        _report(wiring.channel, StartFailure("internal", f"{type(error).__name__}: {error}"))
    os._exit(1)


def join_container(process: Spec, pidfd: int, wiring: Wiring) -> NoReturn:
    """Join the process `pidfd` and exec `process` there; into its pid namespace the child has been born.

    All of its namespaces are joined, whichever way it came to them: to join one that is shared with the host changes nothing.
    """
    try:
        _prepare(wiring, process)
        ns.enter(pidfd, sum(flag for kind, flag in JOINED.items() if kind != "pid"))
        tty = -1
        if process.get("terminal"):
            root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            tty = _terminal(root, wiring, process, console=False)
        _run(process, Confinement(process, wiring.seccomp), wiring, tty, init=False)
    except StartFailure as failure:
        _report(wiring.channel, failure)
    except OSError as error:
        _report(wiring.channel, StartFailure("namespace", describe(error), error.errno or 0))
    except BaseException as error:
        _report(wiring.channel, StartFailure("internal", f"{type(error).__name__}: {error}"))
    os._exit(1)


def _prepare(wiring: Wiring, process: Spec) -> None:
    os.setsid()
    p.prctl(p.PR_SET_DUMPABLE, 0)
    for join in wiring.joins:
        try:
            descriptor = os.open(join, os.O_WRONLY | os.O_CLOEXEC)
            os.write(descriptor, b"0")
            os.close(descriptor)
        except OSError as error:
            raise StartFailure("cgroup", f"joining {join}: {describe(error)}", error.errno or 0) from error
    if process.get("oomScoreAdj") is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(process["oomScoreAdj"]))
    resource.setrlimit(resource.RLIMIT_NOFILE, wiring.files)
    set_limits(process.get("rlimits") or [])


def _join(namespaces: dict[str, str | None], netns: int | None) -> None:
    if netns is not None:
        ns.enter(netns, ns.CLONE_NEWNET)
        os.close(netns)
    for kind, path in namespaces.items():
        if path and kind != "pid":
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            ns.enter(descriptor, JOINED[kind])
            os.close(descriptor)


def _name_host(hostname: str, domain: str) -> None:
    for name, call in ((hostname, LIBC.sethostname), (domain, LIBC.setdomainname)):
        if name:
            text = name.encode()
            check(call(text, len(text)))


def _terminal(root: int, wiring: Wiring, process: Spec, *, console: bool) -> int:
    size = process.get("consoleSize") or {}
    try:
        return terminal.open_terminal(root, wiring.channel, [size.get("height", 0), size.get("width", 0)], console=console)
    except OSError as error:
        raise StartFailure("mount", f"making the terminal: {describe(error)}", error.errno or 0) from error


def _run(process: Spec, confinement: Confinement, wiring: Wiring, tty: int, *, init: bool) -> None:
    identity = resolve_user(process.get("user") or {})
    if tty >= 0:
        terminal.take_terminal(tty, identity.uid)
    else:
        assert wiring.stdio is not None
        for target, descriptor in enumerate(wiring.stdio):
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.fchown(descriptor, identity.uid, -1)
            os.dup2(descriptor, target)
    environment = dict(item.split("=", 1) for item in process.get("env") or [] if "=" in item)
    environment.setdefault("HOME", identity.home)
    p.join_new_session_keyring()
    os.umask(process["user"].get("umask", 0o022) if process.get("user") else 0o022)
    _enter_directory(process.get("cwd") or "/")
    confinement.apply(identity)
    if os.getcwd()[:1] != "/":
        raise StartFailure("workdir", "the working directory is outside the container's root")
    p.close_on_exec_from(3)
    arguments: list[str] = process["args"]
    if init:
        _check_program(arguments[0], environment)
        reaper.split(wiring.channel)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _exec(arguments, environment)


def _enter_directory(path: str) -> None:
    try:
        try:
            os.chdir(path)
        except FileNotFoundError:
            os.makedirs(path, 0o755, exist_ok=True)
            os.chdir(path)
    except OSError as error:
        raise StartFailure(
            "workdir", f"chdir to cwd ({path!r}) set in config.json failed: {describe(error)}", error.errno or 0
        ) from error


def _candidates(program: str, environment: dict[str, str]) -> list[str]:
    if "/" in program:
        return [program]
    return [f"{directory or '.'}/{program}" for directory in environment.get("PATH", _PATH).split(":")]


def _check_program(program: str, environment: dict[str, str]) -> None:
    found = [path for path in _candidates(program, environment) if os.path.exists(path)]
    if not found:
        raise _not_found(program)
    if not any(os.access(path, os.X_OK) and not os.path.isdir(path) for path in found):
        raise StartFailure("exec", f'exec: "{program}": permission denied', errno.EACCES)


def _not_found(program: str) -> StartFailure:
    if "/" in program:
        return StartFailure("exec", f'exec: "{program}": stat {program}: no such file or directory', errno.ENOENT)
    return StartFailure("exec", f'exec: "{program}": executable file not found in $PATH', errno.ENOENT)


def _exec(arguments: list[str], environment: dict[str, str]) -> None:
    program = arguments[0]
    denied = False
    for path in _candidates(program, environment):
        try:
            os.execve(path, arguments, environment)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                if os.path.exists(path):
                    raise StartFailure("exec", f"exec {path}: no such file or directory", errno.ENOENT) from error
                continue
            if error.errno == errno.EACCES:
                denied = True
                continue
            raise StartFailure("exec", f"exec {path}: {(error.strerror or '').lower()}", error.errno or 0) from error
        except ValueError as error:
            raise StartFailure("exec", f'exec: "{program}": {error}', errno.EINVAL) from error
    if denied:
        detail = "is a directory" if os.path.isdir(program) else "permission denied"
        raise StartFailure("exec", f'exec: "{program}": {detail}', errno.EACCES)
    raise _not_found(program)


def _report(channel: socket.socket, failure: StartFailure) -> None:
    text = json.dumps({"stage": failure.stage, "errno": failure.errno, "error": failure.message})
    channel.send(b"E" + text.encode())

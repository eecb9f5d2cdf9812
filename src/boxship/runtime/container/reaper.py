"""PID 1 of a container started with an init: it forwards signals, reaps, and ends as the program does."""

from __future__ import annotations

import os
import signal
import socket

from boxship.syscalls import process as p

_FORWARDED = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD)]


def split(channel: socket.socket) -> None:
    """Return in a new child, which is to exec the program; this process becomes its init and never returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
        except OSError:
            pass  # stdin is no terminal
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        return
    # not the channel alone: this process is a fork of the keeper, and never execs to be rid of what that has open
    channel.close()
    p.close_from(0)
    p.prctl(p.PR_SET_DUMPABLE, 0)
    _reap(child)


def _reap(child: int) -> None:
    name = b"boxship-init\0"
    with open("/proc/self/comm", "wb") as file:
        file.write(name[:-1])
    while True:
        number = signal.sigwait(signal.valid_signals())
        if number != signal.SIGCHLD:
            if number in _FORWARDED:
                try:
                    os.kill(child, number)
                except ProcessLookupError:
                    pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)

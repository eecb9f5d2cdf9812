"""A process's terminal: made in the container's own devpts, its other end sent to the keeper."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios

from boxship.runtime.container.mounts import open_target
from boxship.syscalls import mount as m
from boxship.syscalls.files import open_in_root

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_terminal(root: int, channel: socket.socket, size: list[int] | None, console: bool) -> int:
    """Make a terminal below `root`, send its controlling end over `channel`, and return the process's end.

    `size` is [rows, columns]. With `console` the process's end is also mounted at /dev/console, by descriptor.
    Raises `OSError`.
    """
    controller = open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(controller, _TIOCSPTLCK, struct.pack("i", 0))
    terminal = fcntl.ioctl(controller, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size and size[0] and size[1]:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
    if console:
        number = struct.unpack("i", fcntl.ioctl(controller, _TIOCGPTN, struct.pack("i", 0)))[0]
        target = open_target(root, "/dev/console", directory=False)
        source = open_in_root(root, f"/dev/pts/{number}", os.O_PATH)
        mounted = m.clone_tree("", directory=source)
        m.attach(mounted, target)
        for descriptor in (mounted, source, target):
            os.close(descriptor)
    descriptors = array.array("i", [controller])
    channel.sendmsg([b"T"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    os.close(controller)
    return terminal


def take_terminal(terminal: int, uid: int) -> None:
    """Make `terminal` the controlling one of this session, owned by `uid`, and stdin, stdout and stderr."""
    os.fchown(terminal, uid, -1)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(terminal, descriptor)
    os.close(terminal)

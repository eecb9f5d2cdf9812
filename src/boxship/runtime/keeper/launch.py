"""Entry of the keeper's process: `python -I -S launch.py EXEC_ROOT`.

The interpreter first replaces itself by one that runs from a read-only view of its own binary, so that no
container can ever write to that binary through /proc/self/exe.
"""

import os
import sys

_SEALED = "BOXSHIP_KEEPER_SEALED"


def _seal() -> None:
    from boxship.syscalls import mount as m

    if os.environ.get(_SEALED):
        return
    binary = m.clone_tree(os.path.realpath(sys.executable))
    m.set_attributes(binary, add=m.MOUNT_ATTR_RDONLY)
    os.set_inheritable(binary, False)
    environment = {**os.environ, _SEALED: "1"}
    arguments = [sys.executable, "-I", "-S", "-X", "no_debug_ranges", *sys.argv]
    os.execve(binary, arguments, environment)


sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
sys.dont_write_bytecode = True
_seal()

from boxship.runtime.keeper.main import main  # noqa: E402

main(sys.argv[1])

"""openat2(2) while the host is busy elsewhere."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from boxship.syscalls.files import open_in_root


def test_renames_elsewhere_are_no_reason_to_fail(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "file").write_text("x")
    (root / "link").symlink_to("a/b/../../a/../file")
    ended = threading.Event()

    def rename() -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        one.mkdir()
        while not ended.is_set():
            one.rename(two)
            two.rename(one)

    thread = threading.Thread(target=rename)
    thread.start()
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(5000):
            os.close(open_in_root(directory, "link", os.O_PATH))
    finally:
        ended.set()
        thread.join()
        os.close(directory)

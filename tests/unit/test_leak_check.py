"""The leak check of the suite itself: a check that sees nothing would let everything pass."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

LEAKS = {
    "process": "import subprocess; subprocess.Popen(['sh', '-c', 'sleep 60 & echo $!'], stdout=open({note!r}, 'w')).wait()",
    "mount": "from boxship.syscalls import mount as m; m.mount('tmpfs', {mount!r}, 'tmpfs')",
    "file": "import tempfile; tempfile.mkdtemp(prefix='left-')",
    "cgroup": "import os, glob; os.mkdir(sorted(glob.glob('/sys/fs/cgroup/*/'))[0] + 'boxship-leak-{pid}')",
}


@pytest.mark.parametrize("kind", LEAKS)
def test_every_kind_of_leak_fails_its_test(tmp_path: Path, kind: str) -> None:
    mount, note = tmp_path / "mnt", tmp_path / "note"
    mount.mkdir()
    body = LEAKS[kind].format(mount=str(mount), note=str(note), pid=os.getpid())
    test = tmp_path / "test_leak.py"
    test.write_text(f"def test_leaks() -> None:\n{textwrap.indent(body, '    ')}\n")
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text().replace("_GRACE_SECONDS = 3.0", "_GRACE_SECONDS = 0.1"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    result = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "--basetemp", str(tmp_path / "base"), str(test)],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    if kind == "process":
        os.kill(int(note.read_text()), 9)
    for group in Path("/sys/fs/cgroup").glob(f"*/boxship-leak-{os.getpid()}"):
        group.rmdir()
    assert result.returncode == 1, result.stdout + result.stderr
    assert "the test left behind" in result.stdout
    assert "1 passed" in result.stdout

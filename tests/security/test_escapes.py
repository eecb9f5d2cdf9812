"""Ways out of a running container that once led out of some engine, each tried through the docker command."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.security.conftest import Outside, Python
from tests.support.engine import Engine, busybox_tar, wait_until

UP = "../" * 12


def import_image(engine: Engine, name: str, *added: tuple[tarfile.TarInfo, bytes], without: str = " ") -> None:
    """Busybox's root with entries added, and without what is at or below a path."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as base, tarfile.open(fileobj=out, mode="w") as tar:
        for entry in base:
            if entry.name != without and not entry.name.startswith(f"{without}/"):
                tar.addfile(entry, base.extractfile(entry) if entry.isfile() else None)
        for entry, content in added:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    engine.docker("import", "--change", "ENV PATH=/bin", "-", name, input=out.getvalue())


SWAP = """
import ctypes, os
os.makedirs("{directory}", exist_ok=True)
open("{directory}/secret", "w").write("own")
os.symlink("{target}", "{link}")
print("ready", flush=True)
exchange = ctypes.CDLL(None).renameat2
while exchange(-100, b"{directory}", -100, b"{link}", 2) == 0:
    pass
"""
"""A directory and a link exchange their names, as fast as that goes."""


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = tarfile.SYMTYPE, target, 0o777
    return made, b""


@pytest.fixture
def evil(engine: Engine) -> Iterator[str]:
    """The name of an image that a test imports."""
    yield "evil"
    engine.docker("rm", "-f", *engine.out("ps", "-aq").split(), check=False)
    engine.docker("rmi", "-f", "evil", check=False)


# --- the runtime's own program ---

LIE_IN_WAIT = """
import json, os, sys, time
secret = {secret!r}
deadline = time.monotonic() + 60
held, seen, opened, entered = {{}}, set(), set(), set()
own = {{str(os.getpid()), "1"}}
print("ready", flush=True)
while not os.path.exists("/stop") and time.monotonic() < deadline:
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid in own:
            continue
        if pid not in held:
            try:
                held[pid] = os.open(f"/proc/{{pid}}/exe", os.O_RDONLY)
                seen.add(os.readlink(f"/proc/self/fd/{{held[pid]}}"))
            except OSError as error:
                seen.add(error.strerror)
        for way in ("root", "cwd/../../../../../../.."):
            try:
                os.close(os.open(f"/proc/{{pid}}/{{way}}{{secret}}", os.O_RDONLY))
                entered.add(way)
            except OSError:
                pass
    for pid, fd in list(held.items()):
        try:
            os.close(os.open(f"/proc/self/fd/{{fd}}", os.O_WRONLY))
        except OSError:
            continue
        opened.add(os.readlink(f"/proc/self/fd/{{fd}}"))
        os.close(held.pop(pid))
with open("/result", "w") as file:
    json.dump([sorted(seen), sorted(opened), sorted(entered)], file)
"""


def test_what_joins_a_container_cannot_be_taken_over(engine: Engine, python: Python, outside: Outside) -> None:
    """CVE-2019-5736 and -2016-9962: the container lies in wait for what an exec, or a container in its PID namespace,
    brings in. It opens that program for writing when it ends (it never writes: having got that far would do), and looks
    for the host's files through its root and working directory. `/evil` makes the engine run itself, as an interpreter."""
    attack = LIE_IN_WAIT.format(secret=str(outside.secret))
    engine.docker("run", "-d", "--name", "it", *python.options, "busybox", *python.command, attack)
    wait_until(lambda: engine.out("logs", "it") == "ready", "the attack begins")
    engine.docker("exec", "it", "sh", "-c", "echo '#!/proc/self/exe' >/evil; chmod 755 /evil; cp /bin/busybox /bait")
    for _ in range(10):
        engine.docker("exec", "it", "/evil", check=False)
        engine.docker("exec", "it", "/bait", "usleep", "20000", check=False)
        engine.docker("run", "--rm", "--pid", "container:it", "busybox", "/proc/self/exe", "true", check=False)
    engine.docker("exec", "it", "touch", "/stop")
    assert engine.out("wait", "it") == "0"
    result = engine.directory / "result"
    engine.docker("cp", "it:/result", str(result))
    seen, opened, entered = json.loads(result.read_text())
    # the bait belongs to the container: that it was opened shows that the attack is quick enough to catch an exec
    assert "/bait" in opened
    assert set(opened) <= {"/bait", "/bin/busybox"}, f"opened for writing: {opened} of {seen}"
    assert not entered


# --- the working directory ---


@pytest.mark.parametrize("link_in_image", [False, True])
def test_no_descriptor_is_a_working_directory(engine: Engine, outside: Outside, evil: str, link_in_image: bool) -> None:
    """CVE-2024-21626: from a directory of the host, `..` leads to its root."""
    import_image(engine, evil, *(link(f"fd{number}", f"/proc/self/fd/{number}") for number in range(3, 16)))
    engine.docker("run", "-d", "--name", "it", evil, "sleep", "1000")
    read = ("cat", f"{UP}{outside.secret}".replace("//", "/"))
    for number in range(3, 16):
        directory = f"/fd{number}" if link_in_image else f"/proc/self/fd/{number}"
        for verb in (["run", "--rm", "-w", directory, evil], ["exec", "-w", directory, "it"]):
            done = engine.docker(*verb, *read, check=False)
            assert done.returncode != 0
            assert outside.token not in done.stdout + done.stderr
    # where the directory is the host's, this is how it is read
    engine.docker("run", "--rm", "-v", "/:/host", "-w", f"/host{outside.place}", evil, "cat", "secret")


# --- links in the image where the engine mounts and writes ---


@pytest.mark.parametrize(
    "path", ["proc", "sys", "dev", "etc", "etc/hosts", "etc/resolv.conf", "dev/shm", "proc/sys", "dev/console"]
)
@pytest.mark.parametrize("way", ["absolute", "up", "through proc"])
def test_a_link_in_the_image_redirects_no_mount(engine: Engine, outside: Outside, evil: str, path: str, way: str) -> None:
    """CVE-2019-16884, -19921, 2021-30465, 2025-31133, -52565: whether the container starts or not, its mounts are inside it,
    what is masked is masked, and nothing is made at the host's place that the link names."""
    targets = {"absolute": str(outside.place), "up": f"{UP}{outside.place}", "through proc": f"/proc/1/root{outside.place}"}
    import_image(engine, evil, link(path, targets[way]), without=path)
    script = "cat /proc/interrupts | wc -c; (echo x >/proc/sys/kernel/printk) 2>/dev/null && echo wrote; ls /dev/fuse; true"
    done = engine.docker("run", "--rm", "-t", evil, "sh", "-c", script, check=False)
    if done.returncode == 0:
        assert "wrote" not in done.stdout
        assert path == "proc" or done.stdout.splitlines()[0] == "0"
    assert outside.untouched()
    assert str(outside.place) not in Path("/proc/self/mountinfo").read_text()


def test_a_link_swapped_in_a_shared_volume_redirects_no_mount(engine: Engine, outside: Outside, python: Python) -> None:
    """CVE-2021-30465: one container swaps a mount's target for a link while another is started."""
    swap = SWAP.format(directory="/v/a", link="/v/b", target=outside.place)
    engine.docker("run", "-d", "--name", "swaps", "-v", "shared:/v", *python.options, "busybox", *python.command, swap)
    wait_until(lambda: engine.out("logs", "swaps") == "ready", "the links are swapped")
    for _ in range(15):
        mounts = ("-v", "shared:/v", "-v", "other:/v/a/deep/er")
        done = engine.docker("run", "--rm", *mounts, "busybox", "cat", f"/v/a/{UP}{outside.secret}", check=False)
        assert outside.token not in done.stdout + done.stderr
        assert outside.untouched(), list(outside.place.rglob("*"))
    assert engine.inspect("swaps")["State"]["Running"]


# --- devices, control groups, /sys ---


def test_the_hosts_disk_cannot_be_opened(engine: Engine) -> None:
    """mknod is among the default capabilities; the device rules forbid what it makes, also for an exec."""
    disks = [tuple((path / "dev").read_text().strip().split(":")) for path in Path("/sys/class/block").iterdir()]
    open_to_host = [disk for disk in disks if opens(*map(int, disk))]
    major, minor = (open_to_host or disks)[0]
    script = f"mknod /disk b {major} {minor} && true </disk && echo opened"
    engine.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000")
    for verb in (["run", "--rm", "busybox"], ["exec", "it"]):
        done = engine.docker(*verb, "sh", "-c", script, check=False)
        assert (done.stdout, "can't open /disk: Operation not permitted" in done.stderr) == ("", True)
    if open_to_host:
        assert engine.out("run", "--rm", "--privileged", "busybox", "sh", "-c", script) == "opened"


def opens(major: int, minor: int) -> bool:
    """Whether the host itself may open a block device."""
    with tempfile.TemporaryDirectory() as directory:
        os.mknod(f"{directory}/disk", stat.S_IFBLK | 0o600, os.makedev(major, minor))
        try:
            os.close(os.open(f"{directory}/disk", os.O_RDONLY))
        except OSError:
            return False
    return True


RELEASE_AGENT = """
mkdir /c
for kind in cgroup:memory cgroup:rdma cgroup:pids cgroup2:; do
    mount -t ${kind%%:*} -o "${kind##*:}" none /c 2>/dev/null && echo mounted $kind && umount /c
done
for file in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/*/release_agent /sys/kernel/uevent_helper \
    /sys/fs/cgroup/*/devices.allow /sys/fs/cgroup/devices.allow /proc/sys/kernel/core_pattern /proc/sysrq-trigger; do
    [ -e $file ] && (: >>$file) 2>/dev/null && echo opened $file
done
for directory in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    mkdir $directory/x 2>/dev/null && echo made $directory && rmdir $directory/x
done
true
"""


def test_no_release_agent_no_core_pattern_no_group_of_its_own(engine: Engine) -> None:
    """CVE-2022-0492 and what programs of the host are run through: nothing of it can be written from inside."""
    assert engine.out("run", "--rm", "busybox", "sh", "-c", RELEASE_AGENT) == ""
    engine.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000")
    assert engine.out("exec", "it", "sh", "-c", RELEASE_AGENT) == ""
    # a privileged container may: the script does find what it looks for
    assert "opened /proc/sys/kernel/core_pattern" in engine.out("run", "--rm", "--privileged", "busybox", "sh", "-c", RELEASE_AGENT)


def test_sys_is_read_only(engine: Engine) -> None:
    script = "find /sys -type f -perm -200 2>/dev/null | while read f; do (: >>$f) 2>/dev/null && echo $f; done; true"
    assert engine.out("run", "--rm", "busybox", "sh", "-c", script, timeout=60) == ""


# --- copying ---


def test_a_copy_follows_no_link_swapped_under_it(engine: Engine, outside: Outside, python: Python, tmp_path: Path) -> None:
    """CVE-2018-15664: `docker cp` both ways, while the directory it goes through is a link half of the time."""
    swap = SWAP.format(directory="/d", link="/l", target=outside.place)
    engine.docker("run", "-d", "--name", "it", *python.options, "busybox", *python.command, swap)
    wait_until(lambda: engine.out("logs", "it") == "ready", "the links are swapped")
    (tmp_path / "given").write_text("given")
    copied = 0
    for number in range(25):
        got = tmp_path / f"got{number}"
        engine.docker("cp", "it:/d/secret", str(got), check=False)
        copied += got.is_file() and not got.is_symlink() and got.read_text() == "own"
        engine.docker("cp", str(tmp_path / "given"), "it:/d/given", check=False)
        assert not got.exists() or got.read_text() == "own"
        assert outside.untouched()
    assert copied
    assert engine.inspect("it")["State"]["Running"]


def test_a_device_named_null_is_not_taken_for_the_null_device(engine: Engine, evil: str) -> None:
    """What masks a path is checked to be the device 1:3, not what the image calls so."""
    made = tarfile.TarInfo("dev/null")
    made.type, made.devmajor, made.devminor, made.mode = tarfile.CHRTYPE, 1, 1, 0o666
    import_image(engine, evil, (made, b""))
    out = engine.out("run", "--rm", evil, "stat", "-c", "%t:%T", "/dev/null", "/proc/interrupts")
    assert out.split() == ["1:3", "1:3"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

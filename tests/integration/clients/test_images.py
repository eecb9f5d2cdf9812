"""Images through the docker command: listed, named, saved, loaded, imported and removed."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.engine import Engine, busybox_tar, running_engine


@pytest.fixture(scope="module")
def _own(_clean_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("images")) as engine:
        yield engine


@pytest.fixture
def own(_own: Engine) -> Iterator[Engine]:
    """A daemon whose images may all be removed: each test has busybox, and `one:a` and `one:b`, built on it."""
    if not _own.out("images", "-q", "busybox"):
        _own.add_busybox()
    build(_own, "LABEL of=one\nRUN echo text >/file", "one:a", "one:b")
    yield _own
    _own.clean()
    for name in listed(_own, "--filter", "dangling=false"):
        if name != "busybox:latest":
            _own.docker("rmi", name)
    _own.docker("image", "prune", "-f")
    _own.docker("builder", "prune", "-af")


def build(engine: Engine, lines: str, *tags: str) -> str:
    names = [option for tag in tags for option in ("-t", tag)]
    return engine.out("build", "-q", *names, "-", input=f"FROM busybox\n{lines}\n")


def listed(engine: Engine, *arguments: str) -> list[str]:
    return sorted(engine.out("images", "--format", "{{.Repository}}:{{.Tag}}", *arguments).split())


# --- ls, inspect, history ---


def test_images_are_listed_with_filters(own: Engine) -> None:
    dangling = build(own, "LABEL of=nothing")
    assert listed(own) == ["<none>:<none>", "busybox:latest", "one:a", "one:b"]
    for arguments, expected in {
        ("one",): ["one:a", "one:b"],
        ("one:b",): ["one:b"],
        ("--filter", "reference=o*:b"): ["one:b"],
        ("--filter", "reference=*/*"): [],
        ("--filter", "label=of=one"): ["one:a", "one:b"],
        ("--filter", "label=of", "--filter", "dangling=false"): ["one:a", "one:b"],
        ("--filter", "dangling=true"): ["<none>:<none>"],
        ("--filter", "before=one:a"): ["busybox:latest"],
        ("--filter", "since=busybox", "--filter", "dangling=false"): ["one:a", "one:b"],
        ("--filter", "since=one:a"): ["<none>:<none>"],
        ("--filter", "until=1h"): [],
    }.items():
        assert listed(own, *arguments) == expected, arguments
    assert own.out("images", "-q", "--no-trunc", "--filter", "dangling=true") == dangling
    for wrong, message in (("bogus=1", "invalid filter 'bogus'"), ("dangling=perhaps", "invalid filter 'dangling=[perhaps]'")):
        done = own.docker("images", "--filter", wrong, check=False)
        assert done.returncode == 1
        assert message in done.stderr
    assert "No such image: nobody:latest" in own.docker("images", "--filter", "before=nobody", check=False).stderr


def test_inspect_and_history(own: Engine) -> None:
    assert own.out("image", "inspect", "-f", "{{.Os}} {{json .RepoTags}} {{.Config.Labels.of}}", "one:a") == (
        'linux ["one:a","one:b"] one'
    )
    steps = own.out("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "one:a").splitlines()
    assert steps == ["/bin/sh -c echo text >/file|", "/bin/sh -c #(nop)  LABEL of=one|", "|Imported from -"]
    missing = own.docker("image", "inspect", "nobody", check=False)
    assert missing.returncode == 1
    assert "No such image: nobody:latest" in missing.stderr
    other = own.docker("image", "inspect", "--platform", "linux/s390x", "one:a", check=False)
    assert "does not provide the specified platform (linux/s390x)" in other.stderr


def test_references_are_normalised(own: Engine) -> None:
    wanted = own.out("images", "-q", "--no-trunc", "busybox")
    for name in ("busybox", "library/busybox", "docker.io/busybox:latest", "docker.io/library/busybox", "index.docker.io/busybox",
                 wanted, wanted.removeprefix("sha256:"), wanted[7:19]):  # fmt: skip
        assert own.out("image", "inspect", "-f", "{{.Id}}", name) == wanted, name
    own.docker("tag", "busybox", "docker.io/other/name")
    own.docker("tag", "busybox", "127.0.0.1:5/deep/er/name:v1")
    assert {"other/name:latest", "127.0.0.1:5/deep/er/name:v1"} <= set(listed(own))
    assert "invalid reference format" in own.docker("tag", "busybox", "Upper", check=False).stderr
    status, answer = own.api("POST", "/images/busybox/tag?repo=UPPER")
    assert status == 400
    assert "repository name must be lowercase" in answer["message"]
    assert "No such image: nobody:latest" in own.docker("tag", "nobody", "x", check=False).stderr


# --- rmi ---


def test_the_last_name_takes_the_image_along(own: Engine) -> None:
    image = own.out("images", "-q", "--no-trunc", "one:a")
    assert own.out("rmi", "one:a") == "Untagged: one:a"
    assert own.out("rmi", "one:b").splitlines() == ["Untagged: one:b", f"Deleted: {image}"]
    assert "No such image: one:b" in own.docker("rmi", "one:b", check=False).stderr


def test_by_its_id_an_image_goes_with_its_names(own: Engine) -> None:
    image = own.out("images", "-q", "--no-trunc", "one:a")
    own.docker("tag", "one:a", "two:a")
    refused = own.docker("rmi", image[7:19], check=False)
    assert refused.returncode == 1
    assert (
        f"conflict: unable to delete {image[7:19]} (must be forced) - image is referenced in multiple repositories"
        in refused.stderr
    )
    own.docker("rmi", "two:a")
    assert own.out("rmi", image[7:19]).splitlines() == ["Untagged: one:a", "Untagged: one:b", f"Deleted: {image}"]
    own.docker("build", "-t", "one:a", "-", input="FROM busybox\nLABEL of=forced\n")
    own.docker("tag", "one:a", "two:a")
    assert own.out("rmi", "-f", own.out("images", "-q", "one:a")).count("Untagged") == 2


def test_an_image_in_use_is_kept(own: Engine) -> None:
    own.docker("rmi", "one:b")
    image, stopped = own.out("images", "-q", "one:a"), own.out("create", "one:a")
    named = own.docker("rmi", "one:a", check=False)
    assert (
        f'conflict: unable to remove repository reference "one:a" (must force) - container {stopped[:12]}'
        f" is using its referenced image {image}"
    ) in named.stderr
    by_id = own.docker("rmi", image, check=False)
    assert f"unable to delete {image} (must be forced) - image is being used by stopped container {stopped[:12]}" in by_id.stderr
    assert own.out("rmi", "-f", "one:a") == "Untagged: one:a"
    own.docker("rm", stopped)
    own.docker("rmi", image)

    image, running = own.out("images", "-q", "busybox"), own.out("run", "-d", "busybox", "sleep", "1000")
    forced = own.docker("rmi", "-f", image, check=False)
    assert forced.returncode == 1
    assert f"unable to delete {image} (cannot be forced) - image is being used by running container {running[:12]}" in forced.stderr


# --- save, load, import ---

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: subprocess.run(["zstd", "-qc"], input=data, check=True, capture_output=True).stdout,
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_several_images_are_saved_and_loaded(own: Engine, tmp_path: Path, name: str) -> None:
    image = own.out("images", "-q", "--no-trunc", "one:a")
    own.docker("save", "-o", str(tmp_path / "saved"), "one:a", "one:b", "busybox")
    (tmp_path / "packed").write_bytes(COMPRESSORS[name]((tmp_path / "saved").read_bytes()))
    own.docker("rmi", "one:a", "one:b")
    assert own.out("load", "-i", str(tmp_path / "packed")).splitlines() == [
        "Loaded image: one:a", "Loaded image: one:b", "Loaded image: busybox:latest"
    ]  # fmt: skip
    assert own.out("images", "-q", "--no-trunc", "one:b") == image
    assert own.out("run", "--rm", "one:a", "cat", "/file") == "text"


def test_an_image_goes_through_a_pipe(own: Engine) -> None:
    image = own.out("images", "-q", "--no-trunc", "one:a")
    saved = subprocess.run(["docker", "save", image], env=own.environment(), check=True, capture_output=True).stdout
    own.docker("rmi", "one:a", "one:b")
    assert own.out("load", input=saved) == f"Loaded image ID: {image}"
    assert listed(own, "--filter", "label=of=one") == ["<none>:<none>"]
    assert "No such image: nobody" in own.docker("save", "nobody", check=False).stderr
    assert own.docker("load", input="no archive", check=False).returncode == 1


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_skopeo_reads_and_writes_what_is_loaded(own: Engine, tmp_path: Path, form: str) -> None:
    own.docker("save", "-o", str(tmp_path / "saved.tar"), "one:a")
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{tmp_path}/saved.tar",
                    f"{form}:{tmp_path}/copied.tar:other:v1"], check=True, timeout=30)  # fmt: skip
    assert own.out("load", "-i", str(tmp_path / "copied.tar")) == "Loaded image: other:v1"
    assert own.out("run", "--rm", "other:v1", "cat", "/file") == "text"


@pytest.fixture
def podman_root() -> Iterator[str]:
    """podman takes paths of up to 50 characters."""
    with tempfile.TemporaryDirectory(prefix="podman", dir="/tmp") as path:
        yield path


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")
def test_podman_and_the_engine_load_from_each_other(own: Engine, tmp_path: Path, podman_root: str) -> None:
    podman = ["podman", "--root", f"{podman_root}/root", "--runroot", f"{podman_root}/run", "--storage-driver", "vfs"]

    def run(*arguments: str) -> str:
        return subprocess.run([*podman, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout

    try:
        own.docker("save", "-o", str(tmp_path / "ours.tar"), "one:a")
        run("load", "-q", "-i", str(tmp_path / "ours.tar"))
        found = json.loads(run("image", "inspect", "docker.io/library/one:a"))[0]
        assert f"sha256:{found['Id']}" == own.out("images", "-q", "--no-trunc", "one:a")
        run("tag", "docker.io/library/one:a", "docker.io/library/theirs:v1")
        for form in ("docker-archive", "oci-archive"):
            run("save", "-q", "--format", form, "-o", str(tmp_path / f"{form}.tar"), "docker.io/library/theirs:v1")
            assert own.out("load", "-i", str(tmp_path / f"{form}.tar")) == "Loaded image: theirs:v1"
            assert own.out("run", "--rm", "theirs:v1", "cat", "/file") == "text"
    finally:
        run("rmi", "-af")


def test_import_with_changes_and_a_message(own: Engine) -> None:
    changes = ["--change", 'CMD ["cat", "/etc/passwd"]', "--change", "ENV A=b", "--change", "EXPOSE 80", "-m", "from a test"]
    image = own.out("import", *changes, "-", "imported:v1", input=gzip.compress(busybox_tar()))
    assert own.out("image", "inspect", "-f", "{{.Id}} {{.Comment}} {{json .Config.Env}} {{json .Config.ExposedPorts}}",
                   "imported:v1") == f'{image} from a test ["A=b"] {{"80/tcp":{{}}}}'  # fmt: skip
    assert own.out("run", "--rm", "imported:v1").startswith("root:")
    wrong = own.docker("import", "--change", "RUN x", "-", input=busybox_tar(), check=False)
    assert "RUN" in wrong.stderr
    own.docker("import", "--platform", "linux/arm64", "-", "imported:arm", input=busybox_tar())
    assert own.out("image", "inspect", "-f", "{{.Architecture}}", "imported:arm") == "arm64"


# --- prune, df ---


def test_prune_goes_by_its_filters(own: Engine) -> None:
    dangling = build(own, "LABEL of=nothing")
    assert own.out("image", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B"
    assert own.out("image", "prune", "-f", "--filter", "label!=of") == "Total reclaimed space: 0B"
    assert f"deleted: {dangling}" in own.out("image", "prune", "-f")
    assert listed(own) == ["busybox:latest", "one:a", "one:b"]
    own.docker("create", "one:a")
    own.docker("image", "prune", "-af", "--filter", "label=of=one")
    assert listed(own) == ["busybox:latest", "one:a", "one:b"]  # a container stands on it
    own.docker("container", "prune", "-f", "--filter", "until=1h")
    assert own.out("ps", "-aq")
    own.docker("container", "prune", "-f")
    assert "untagged: one:a" in own.out("image", "prune", "-af", "--filter", "label=of=one")
    assert listed(own) == ["busybox:latest"]
    refused = own.docker("image", "prune", "-f", "--filter", "bogus=x", check=False)
    assert "invalid filter 'bogus'" in refused.stderr


def test_the_build_cache_is_pruned_as_asked(own: Engine) -> None:
    def cached() -> int:
        return len(own.api("GET", "/v1.51/system/df")[1]["BuildCache"])

    build(own, "RUN echo gone >/gone", "gone:1")
    entries = cached()
    own.docker("rmi", "gone:1")
    own.docker("builder", "prune", "-af", "--filter", "until=1h")
    assert cached() == entries
    own.docker("builder", "prune", "-f")  # what no image stands on
    assert cached() == entries - 1
    assert "keep-storage" in own.docker("builder", "prune", "-f", "--keep-storage", "1GB", check=False).stderr
    assert "invalid filter 'type'" in own.docker("builder", "prune", "-f", "--filter", "type=regular", check=False).stderr
    own.docker("builder", "prune", "-af")
    assert cached() == 0


def test_system_df_counts_shared_layers_once(own: Engine) -> None:
    container = own.out("run", "-d", "-v", "data:/data", "one:a", "sh", "-c", "echo 1234567 >/data/file; sleep 1000")
    base, one = (int(own.out("image", "inspect", "-f", "{{.Size}}", name)) for name in ("busybox", "one:a"))
    usage = own.api("GET", "/v1.51/system/df")[1]
    images = {image["RepoTags"][0]: image for image in usage["Images"]}
    assert usage["LayersSize"] == one
    assert (images["busybox:latest"]["SharedSize"], images["one:a"]["SharedSize"]) == (base, base)
    assert (images["busybox:latest"]["Containers"], images["one:a"]["Containers"]) == (0, 1)
    assert [entry["Id"] for entry in usage["Containers"]] == [container]
    assert usage["Volumes"][0]["UsageData"]["RefCount"] == 1
    shown = own.out("system", "df", "-v")
    for heading in ("Images space usage:", "Containers space usage:", "Local Volumes space usage:", "Build cache usage:"):
        assert heading in shown
    assert own.out("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").splitlines()[:3] == [
        "Images 2 1", "Containers 1 1", "Local Volumes 1 1"
    ]  # fmt: skip

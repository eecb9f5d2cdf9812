"""Images from strangers, built, imported, loaded and copied into: nothing of them leaves their own root."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.security.conftest import Outside
from tests.support.engine import Engine, busybox_tar

UP = "../" * 12
Entries = list[tuple[tarfile.TarInfo, bytes]]


def file(name: str, content: bytes = b"escaped", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


def link(name: str, target: str, letter: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return file(name, b"", type=letter, linkname=target, mode=0o777)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry, content in entries:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


ESCAPES: dict[str, Callable[[str], Entries]] = {
    "dots": lambda place: [file(f"{UP}{place}/x")],
    "dots behind a name": lambda place: [file(f"a/{UP}{place}/x")],
    "an absolute name": lambda place: [file(f"{place}/x")],
    "through a link": lambda place: [link("out", place), file("out/x")],
    "through a link with dots": lambda place: [link("out", f"{UP}{place}"), file("out/x")],
    "through links of links": lambda place: [link("a", f"{UP}{place}"), link("b", "a"), file("b/x")],
    "over a link to a file": lambda place: [link("out", f"{place}/secret"), file("out")],
    "a hard link": lambda place: [link("out", f"{place}/secret", tarfile.LNKTYPE), file("out")],
    "a hard link with dots": lambda place: [link("out", f"{UP}{place}/secret", tarfile.LNKTYPE)],
    "a hard link through a link": lambda place: [link("d", place), link("out", "d/secret", tarfile.LNKTYPE)],
    "a directory that is a link": lambda place: [link("out", place), file("out", b"", type=tarfile.DIRTYPE, mode=0o777)],
    "through proc": lambda place: [link("out", f"/proc/self/root{place}"), file("out/x")],
}  # fmt: skip
escapes = pytest.mark.parametrize("way", ESCAPES)


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.clean()
    for image in ("evil", "built"):
        engine.docker("rmi", "-f", image, check=False)


def check(engine: Engine, outside: Outside, image: str | None = None) -> None:
    """Nothing outside has changed, and the image, if it was made, does not have the secret."""
    assert outside.untouched()
    assert outside.secret.stat().st_nlink == 1
    assert outside.place.stat().st_mode & 0o777 != 0o777
    if image and engine.docker("image", "inspect", image, check=False).returncode == 0:
        engine.docker("create", "--name", "it", image, "true")
        saved, exported = (engine.directory / name for name in ("saved.tar", "exported.tar"))
        engine.docker("save", "-o", str(saved), image)
        engine.docker("export", "-o", str(exported), "it")
        for made in (saved, exported):
            assert outside.token.encode() not in made.read_bytes()


def build(engine: Engine, context: Path, dockerfile: str) -> int:
    (context / "Dockerfile").write_text(dockerfile)
    return engine.docker("build", "-t", "built", str(context), check=False).returncode


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "given").write_text("escaped")
    return made


def test_the_check_sees_a_secret_that_is_in_an_image(engine: Engine, outside: Outside, context: Path) -> None:
    (context / "given").write_text(outside.token)
    assert build(engine, context, "FROM busybox\nCOPY given /got\n") == 0
    with pytest.raises(AssertionError, match="assert b"):
        check(engine, outside, "built")


# --- tars ---


@escapes
def test_import(engine: Engine, outside: Outside, way: str) -> None:
    directories = [file(str(path)[1:], b"", type=tarfile.DIRTYPE, mode=0o755) for path in reversed(outside.secret.parents)][1:]
    engine.docker("import", "-", "evil", input=tar_of(*directories, *ESCAPES[way](str(outside.place))), check=False)
    check(engine, outside, "evil")


@escapes
def test_copying_in(engine: Engine, outside: Outside, way: str) -> None:
    engine.docker("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    engine.docker("exec", "runs", "mkdir", "-p", str(outside.place))
    engine.docker("create", "--name", "stands", "busybox")
    for name in ("runs", "stands"):
        engine.docker("cp", "-", f"{name}:/tmp", input=tar_of(*ESCAPES[way](str(outside.place))), check=False)
        check(engine, outside)


@escapes
def test_adding_an_archive(engine: Engine, outside: Outside, context: Path, way: str) -> None:
    (context / "evil.tar").write_bytes(tar_of(*ESCAPES[way](str(outside.place))))
    build(engine, context, f"FROM busybox\nRUN mkdir -p {outside.place}\nADD evil.tar /tmp/\n")
    check(engine, outside, "built")


@escapes
def test_a_context(engine: Engine, outside: Outside, way: str) -> None:
    dockerfile = file("Dockerfile", b"FROM busybox\nCOPY . /c/\nCOPY out* /d/\n")
    tar = tar_of(dockerfile, *ESCAPES[way](str(outside.place)))
    engine.api("POST", "/build?t=built", tar, {"Content-Type": "application/x-tar"})
    check(engine, outside, "built")


@pytest.mark.parametrize("driver", ["erofs", "overlay2"])
def test_loading_layers(tmp_path: Path, new_engine: Callable[..., Engine], outside: Outside, driver: str) -> None:
    engine = new_engine("--storage-driver", driver, busybox=False)
    for entries in ESCAPES.values():
        engine.docker("load", input=archive(tar_of(*entries(str(outside.place)))), check=False)
        check(engine, outside, "evil")
        engine.clean()
        engine.docker("rmi", "-f", "evil", check=False)


# --- archives of images ---


def archive(layer: bytes, *, name: str = "layer.tar", config_name: str = "config.json", diff_id: str = "") -> bytes:
    """A docker-archive of one layer."""
    diff_id = diff_id or f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "config": {}}
    manifest = [{"Config": config_name, "RepoTags": ["evil:latest"], "Layers": [name]}]
    return tar_of(
        file(config_name, json.dumps(config).encode()), file("manifest.json", json.dumps(manifest).encode()), file(name, layer)
    )


def test_a_layer_that_is_not_what_its_configuration_says(engine: Engine) -> None:
    done = engine.docker("load", input=archive(tar_of(file("x")), diff_id=f"sha256:{'0' * 64}"), check=False)
    assert done.returncode == 1
    assert "sha256:" in done.stderr
    assert engine.docker("image", "inspect", "evil", check=False).returncode == 1


@pytest.mark.parametrize(
    "names", [("layer.tar", "../../config.json"), ("../../layer.tar", "config.json"), ("ABSOLUTE", "config.json")]
)
def test_a_manifest_that_names_files_of_the_host(engine: Engine, outside: Outside, names: tuple[str, str]) -> None:
    """The names are looked up in the archive alone: the members are left out, so that only the host would have them."""
    name, config_name = (each.replace("ABSOLUTE", str(outside.secret)) for each in names)
    manifest = [{"Config": config_name, "RepoTags": ["evil:latest"], "Layers": [name]}]
    for members in ([], [link("layer.tar", str(outside.secret)), link("config.json", str(outside.secret))]):
        tar = tar_of(file("manifest.json", json.dumps(manifest).encode()), *members)
        done = engine.docker("load", input=tar, check=False)
        assert done.returncode == 1
        assert outside.token not in done.stdout + done.stderr
        check(engine, outside, "evil")


def test_a_bomb_in_a_layer_costs_no_more_than_it_says(engine: Engine) -> None:
    """A header that claims 1 TiB with nothing behind it, compressed or not, is refused, and nothing of it is kept."""
    entry = tarfile.TarInfo("huge")
    entry.size = 1 << 40
    lying = entry.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    before = sum(path.stat().st_blocks for path in engine.data_root.rglob("*") if path.is_file())
    for data in (lying, gzip.compress(lying)):
        for verb in (["import", "-", "evil"], ["load"]):
            done = engine.docker(*verb, input=data if verb[0] == "import" else archive(data), check=False)
            assert done.returncode == 1, done
            assert engine.docker("image", "inspect", "evil", check=False).returncode == 1
    after = sum(path.stat().st_blocks for path in engine.data_root.rglob("*") if path.is_file())
    assert (after - before) * 512 < 4 << 20


# --- builds ---

LINKS = """
FROM busybox AS first
RUN ln -s PLACE /abs; ln -s UPPLACE /up; ln -s /proc/1/root/PLACE /proc1
RUN mkdir -p PLACE; echo own >PLACE/secret
"""
"""What the links name is there in the stage too: a step that follows them lands there."""

STEPS = [
    "COPY given /LINK/", "COPY given /LINK/x", "COPY given /LINK/secret", "ADD given /LINK/", "ADD evil.tar /LINK/",
    "COPY --from=first /LINK/ /got/", "COPY --from=first /LINK/secret /got", "WORKDIR /LINK/made\nRUN touch x",
    "WORKDIR /LINK\nCOPY given .", "RUN echo x >/LINK/x", "VOLUME /LINK/x\nRUN touch /LINK/x/y",
]  # fmt: skip


@pytest.mark.parametrize("name", ["abs", "up", "proc1"])
@pytest.mark.parametrize("step", STEPS)
def test_a_link_of_the_stage_leads_no_step_out(engine: Engine, outside: Outside, context: Path, name: str, step: str) -> None:
    (context / "evil.tar").write_bytes(tar_of(file("x")))
    links = LINKS.replace("UPPLACE", f"{UP}{outside.place}").replace("PLACE", str(outside.place))
    code = build(engine, context, f"{links}FROM first\n{step.replace('LINK', name)}\n")
    assert code == 0 or name == "proc1"  # /proc is empty but for the steps of RUN
    check(engine, outside, "built")


@pytest.mark.parametrize("source", ["leak", "directory/secret", "directory", "../outside/secret", "up/secret", "."])
@pytest.mark.parametrize("verb", ["COPY", "ADD"])
def test_a_link_of_the_context_gives_no_file_of_the_host(
    engine: Engine, outside: Outside, context: Path, verb: str, source: str
) -> None:
    (context / "leak").symlink_to(outside.secret)
    (context / "directory").symlink_to(outside.place)
    (context / "up").symlink_to("../outside")
    build(engine, context, f"FROM busybox\n{verb} {source} /got/\n")
    check(engine, outside, "built")


def test_a_dockerfile_that_is_a_link_gives_no_file_of_the_host(engine: Engine, outside: Outside) -> None:
    """The error must not quote it either."""
    for target in (str(outside.secret), f"{UP}{outside.secret}"):
        tar = tar_of(link("Dockerfile", target), link(".dockerignore", target))
        status, answer = engine.api("POST", "/build?t=built", tar, {"Content-Type": "application/x-tar"})
        assert outside.token not in str(answer)
        assert status != 200 or "error" in str(answer)
    for name in (f"{UP}{outside.secret}", str(outside.secret)):
        tar = tar_of(file("Dockerfile", b"FROM busybox\n"))
        status, answer = engine.api("POST", f"/build?t=built&dockerfile={name}", tar, {"Content-Type": "application/x-tar"})
        assert outside.token not in str(answer)
        assert status != 200 or "error" in str(answer)


@pytest.mark.parametrize("number", [3, 5, 7, 8, 9, 10, 11, 12])
def test_no_descriptor_is_the_working_directory_of_a_step(engine: Engine, outside: Outside, context: Path, number: int) -> None:
    """CVE-2024-21626 by way of a Dockerfile."""
    step = f"FROM busybox\nWORKDIR /proc/self/fd/{number}\nRUN cat {UP}{str(outside.secret)[1:]} >/got\n"
    assert build(engine, context, step) != 0
    check(engine, outside)


@pytest.mark.parametrize("path", ["etc", "dev", "proc", "sys", "etc/hosts", "etc/resolv.conf", "dev/shm"])
def test_what_a_step_leaves_as_a_link_is_not_followed_by_the_clean_up(
    engine: Engine, outside: Outside, context: Path, path: str
) -> None:
    """CVE-2024-23652: places that the engine made for the mounts of a step are removed after it."""
    for name in ("hosts", "resolv.conf", "hostname", "shm", "null"):
        (outside.place / name).write_text(name)
    tar = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as base, tarfile.open(fileobj=tar, mode="w") as made:
        for entry in base:
            if entry.name != path and not entry.name.startswith(f"{path}/"):
                made.addfile(entry, base.extractfile(entry) if entry.isfile() else None)
        made.addfile(link(path, str(outside.place))[0])
    engine.docker("import", "--change", "ENV PATH=/bin", "-", "evil", input=tar.getvalue())
    build(engine, context, "FROM evil\nRUN true\nRUN rm -rf /tmp && ln -s / /tmp\nCOPY given /got\nRUN true\n")
    names = {each.name: each.read_text() for each in outside.place.iterdir()}
    assert names == {"secret": outside.token, **{name: name for name in ("hosts", "resolv.conf", "hostname", "shm", "null")}}


@pytest.mark.parametrize("name", ["../../escape", "..", "b/escape", "a/../../../escape", "%2e%2e%2fescape", "."])
def test_names_are_no_paths(engine: Engine, name: str) -> None:
    assert engine.api("POST", "/volumes/create", {"Name": name})[0] == 400
    body = {"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "volume", "Source": name, "Target": "/v"}]}}
    assert engine.api("POST", "/containers/create", body)[0] in (400, 500)
    quoted = quote(name, safe="")
    assert engine.api("POST", f"/containers/create?name={quoted}", {"Image": "busybox"})[0] == 400
    for path in (f"/volumes/{quoted}", f"/containers/{quoted}/json", f"/networks/{quoted}", f"/images/{quoted}/json"):
        status, answer = engine.api("GET", path)
        assert status in (400, 404), answer
    assert not list(engine.directory.rglob("*escape*"))

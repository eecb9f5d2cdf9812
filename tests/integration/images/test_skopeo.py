"""skopeo reads what we save, and we read what it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.integration.images.conftest import NewStore, digest, docker_archive, small_layer, tar_of

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

LAYERS = (small_layer("a"), small_layer("b"))


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_it_reads_our_archives_in_both_forms(new_store: NewStore, tmp_path: Path, form: str) -> None:
    store = new_store()
    await store.load(tar_of(docker_archive(*LAYERS)))
    (tmp_path / "box.tar").write_bytes(await store.save("box:1"))

    skopeo("copy", f"{form}:{tmp_path}/box.tar", f"dir:{tmp_path}/out")

    config = json.loads(skopeo("inspect", "--config", f"{form}:{tmp_path}/box.tar"))
    assert config["rootfs"]["diff_ids"] == [digest(layer) for layer in LAYERS]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_we_read_its_archives_in_both_forms(
    new_store: NewStore, tmp_path: Path, form: str, compression: str, odd_layer: bytes
) -> None:
    first, second = new_store(), new_store()
    await first.load(tar_of(docker_archive(*LAYERS, odd_layer)))
    (tmp_path / "box.tar").write_bytes(await first.save("box:1"))
    options = ["--dest-compress-format", compression] if form == "oci-archive" else []

    skopeo("copy", *options, f"docker-archive:{tmp_path}/box.tar", f"{form}:{tmp_path}/its.tar:example.com/box:2")

    assert await second.load((tmp_path / "its.tar").read_bytes()) == ["Loaded image: example.com/box:2"]
    image = second.images.get("example.com/box:2")
    assert [second.layer(layer) for layer in image.layers] == [*LAYERS, odd_layer]

"""Other people's clients against our registry."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from tests.integration.registry.conftest import Home, Ours
from tests.integration.registry.pictures import Putter, large_layer, picture, tar_of

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

LAYERS = (tar_of(a=b"a" * 5000), large_layer(3 << 20))


async def skopeo(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "skopeo", "--insecure-policy", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, error.decode()
    return out.decode()


@pytest.mark.parametrize("form", ["oci", "v2s2"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_it_pushes_and_we_pull(ours: Ours, home: Home, tmp_path: Path, form: str, compression: str) -> None:
    if (form, compression) == ("v2s2", "zstd"):
        pytest.skip("Docker's manifests have no zstd in skopeo")
    source = await _stored(ours, tmp_path)
    await skopeo("copy", "--format", form, "--dest-compress-format", compression, "--dest-tls-verify=false",
                 source, f"docker://{ours.host}/its/box:1")  # fmt: skip
    found = await home.pull(f"{ours.host}/its/box:1")
    assert [home.layer(layer) for layer in found.layers] == list(LAYERS)


async def test_we_push_and_it_pulls(ours: Ours, home: Home, tmp_path: Path) -> None:
    image = home.make(*LAYERS, tag=f"{ours.host}/our/box:1")
    await home.push(f"{ours.host}/our/box:1")
    await skopeo("copy", "--src-tls-verify=false", f"docker://{ours.host}/our/box:1", f"dir:{tmp_path}/out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["config"]["digest"] == image.id
    assert json.loads(await skopeo("inspect", "--tls-verify=false", f"docker://{ours.host}/our/box:1"))["RepoTags"] == ["1"]
    assert json.loads(await skopeo("list-tags", "--tls-verify=false", f"docker://{ours.host}/our/box"))["Tags"] == ["1"]


async def test_it_copies_within_and_removes(ours: Ours, tmp_path: Path) -> None:
    await _stored(ours, tmp_path)
    await skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false",
                 f"docker://{ours.host}/box:1", f"docker://{ours.host}/copy:2")  # fmt: skip
    assert ours.repositories.names() == ["box", "copy"]
    await skopeo("delete", "--tls-verify=false", f"docker://{ours.host}/copy:2")
    assert ours.repositories.get("copy").tags == {}


async def test_it_copies_whole_indexes(ours: Ours, peer: Putter, tmp_path: Path) -> None:
    children = [picture(tar_of(which=which.encode()), architecture=which) for which in ("amd64", "arm64")]
    top = await ours.putter.index("box", "all", *children)
    host = peer.http.base_url.netloc.decode()
    for source, target in ((f"{ours.host}/box:all", f"{host}/from-ours:all"), (f"{host}/from-ours:all", f"{ours.host}/back:all")):
        await skopeo(
            "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{source}", f"docker://{target}"
        )
    assert ours.repositories.manifest("back", "all")[0] == top


async def _stored(ours: Ours, tmp_path: Path) -> str:
    """An image of ours as a directory that skopeo reads."""
    await ours.putter.image("box", "1", picture(*LAYERS))
    await skopeo("copy", "--src-tls-verify=false", f"docker://{ours.host}/box:1", f"oci:{tmp_path}/layout:1")
    return f"oci:{tmp_path}/layout:1"

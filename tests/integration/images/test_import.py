"""`docker import`: a root filesystem's tar becomes an image."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from tests.integration.images.conftest import NewStore, Store, digest, pieces, small_layer, tar_of

from boxship.errors import Invalid, Unavailable
from boxship.images.importing import import_tar
from boxship.images.model import Image
from boxship.oci.platform import Platform
from boxship.oci.reference import Reference
from boxship.syscalls import mount as m

A = small_layer("a")


async def imported(
    store: Store, data: bytes, *changes: str, tag: str | None = "box:1", message: str = "", step: int = 1000
) -> Image:
    reference = Reference.parse(tag) if tag else None
    return await import_tar(store.images, pieces(data, step), reference, changes, message, None)


async def test_the_tar_is_the_layer_bit_for_bit(store: Store, odd_layer: bytes) -> None:
    image = await imported(store, gzip.compress(odd_layer))
    assert image.layers == (digest(odd_layer),)
    assert store.layer(image.layers[0]) == odd_layer
    assert store.images.get("box:1").id == image.id


async def test_changes_and_message_go_into_the_configuration(store: Store) -> None:
    image = await imported(store, A, 'CMD ["/bin/sh"]', "ENV A=1 B=two", "EXPOSE 80", message="from elsewhere")
    config = image.config.config
    assert config is not None
    assert (config.cmd, config.env, config.exposed_ports) == (["/bin/sh"], ["A=1", "B=two"], {"80/tcp": {}})
    assert image.config.history is not None
    assert [step.comment for step in image.config.history] == ["from elsewhere"]


async def test_an_image_may_have_no_name_and_another_platform(store: Store) -> None:
    image = await import_tar(store.images, pieces(A), None, [], "", Platform.parse("linux/arm/v7"))
    assert image.tags == ()
    assert str(image.config.platform) == "linux/arm/v7"
    assert image.config.history is not None
    assert image.config.history[0].comment == "Imported from -"


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (b"", (), "tar is empty"),
        (b"<html>" + b"x" * 600, (), "no sound tar"),
        (gzip.compress(tar_of({"f": os.urandom(9000)}))[:-9], (), "cut short"),
        (tar_of({"f": b"x" * 9000})[:5000], (), "cut short"),
        (A, ("FROM other",), "FROM is not a valid change command"),
        (A, ('CMD ["unclosed',), "malformed JSON list"),
    ],
)
async def test_unsound_input_is_refused_and_leaves_nothing(
    store: Store, data: bytes, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        await imported(store, data, *changes)
    assert store.held() == ([], [], [])


async def test_a_full_disk_leaves_nothing(new_store: NewStore, tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    m.mount("tmpfs", str(root), "tmpfs", 0, "size=2m")
    try:
        store = new_store(root)
        with pytest.raises(Unavailable, match="no space left on device"):
            await imported(store, tar_of({"big": os.urandom(4 << 20)}), step=100_000)
        assert store.held() == ([], [], [])
    finally:
        m.unmount(str(root), m.MNT_DETACH)

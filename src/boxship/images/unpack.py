"""A compressed layer taken in: into the content store as it came, and into the snapshotter as a layer, at once."""

from __future__ import annotations

from types import TracebackType

from boxship.content.store import Ingest
from boxship.images.store import Images
from boxship.oci.descriptor import Descriptor
from boxship.snapshots.compression import Decompressor
from boxship.snapshots.contract import LayerWriter


class Unpacker:
    """Fed with a blob from its beginning or, resumed, from `offset`; `commit` makes both forms visible."""

    def __init__(self, images: Images, descriptor: Descriptor, diff_id: str) -> None:
        self._images = images
        self._descriptor = descriptor
        self._diff_id = diff_id
        self._decompressor = Decompressor()
        self._ingest: Ingest = images.content.ingest(descriptor.digest, expected=descriptor.digest, size=descriptor.size)
        self._writer: LayerWriter = images.snapshotter.writer(keep=False)

    @property
    def offset(self) -> int:
        """How many bytes of the blob are here."""
        return self._ingest.offset

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ingest.__exit__(kind, error, trace)
        self._writer.__exit__(kind, error, trace)

    def replay(self) -> None:
        """After a resume: put what is on disk already through the unpacking."""
        for chunk in self._ingest.written():
            for piece in self._decompressor.feed(chunk):
                self._writer.write(piece)

    def feed(self, data: bytes) -> None:
        """Raises `Invalid` for more than the descriptor states, a broken stream, an unsound tar."""
        self._ingest.write(data)
        for piece in self._decompressor.feed(data):
            self._writer.write(piece)

    def commit(self) -> None:
        """Verify both digests and make the layer visible; raises `Invalid`."""
        rest = self._decompressor.finish()
        if rest:
            self._writer.write(rest)
        self._ingest.commit()
        self._writer.commit(self._diff_id)

    def abandon(self) -> None:
        """Forget what has come, where going on from it is of no use."""
        self._ingest.abort()

    def remember(self) -> None:
        """Note that the layer came as this blob. Apart from `commit`, which may run on any thread."""
        self._images.remember_blob(self._diff_id, self._descriptor)

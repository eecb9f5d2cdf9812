from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.runtime import Runtime, runtime


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """One keeper for a module: that it goes on whatever its containers do is part of what is tested."""
    with runtime(tmp_path_factory.mktemp("k")) as made:
        yield made

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.runtime import Runtime, runtime


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with runtime(tmp_path_factory.mktemp("k")) as made:
        yield made

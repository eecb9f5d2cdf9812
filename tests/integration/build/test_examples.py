"""The examples build, and do what their pages say."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.engine import Engine

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/Dockerfile")))
def test_it_builds(engine: Engine, name: str) -> None:
    engine.docker("build", "--network", "none", "-t", f"example-{name}", str(EXAMPLES / name))
    assert (EXAMPLES / name / "README.md").exists()


def test_stages(engine: Engine) -> None:
    directory = str(EXAMPLES / "stages")
    engine.docker("build", "--network", "none", "--target", "test", directory)
    output = engine.out("build", "--network", "none", "-t", "pages", "--build-arg", "title=mine", directory)
    assert output.count(" ---> Using cache") == 4  # an argument counts for the commands after it
    page = engine.out(
        "run", "--rm", "--network", "none", "pages", "sh", "-c", "httpd -p 8080 -h /srv; wget -qO- http://127.0.0.1:8080/about.html"
    )
    assert "<h1>mine: about</h1>" in page
    assert "Another one." in page

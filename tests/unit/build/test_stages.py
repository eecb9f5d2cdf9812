"""Which stages a Dockerfile has, and which of them a target needs."""

from __future__ import annotations

import pytest

from boxship.build.parser import parse
from boxship.build.stages import plan
from boxship.errors import Invalid

DOCKERFILE = """
ARG version=1
FROM a AS one
RUN x
FROM b AS Two
COPY --from=one /x /y
FROM one
COPY --from=1 /x /y
FROM c AS last
COPY --from=image:tag /x /y
"""


def test_stages() -> None:
    found = plan(parse(DOCKERFILE))
    assert [(stage.name, stage.base, len(stage.steps)) for stage in found.stages] == [
        ("one", "a", 1), ("two", "b", 1), ("", "one", 1), ("last", "c", 1),
    ]  # fmt: skip
    assert [instruction.text for instruction in found.arguments] == ["version=1"]


@pytest.mark.parametrize(
    ("target", "needed"),
    [("", [3]), ("last", [3]), ("one", [0]), ("two", [0, 1]), ("TWO", [0, 1]), ("2", [0, 1, 2]), ("0", [0])],
)
def test_a_target_and_what_it_needs(target: str, needed: list[int]) -> None:
    found = plan(parse(DOCKERFILE))
    assert [stage.index for stage in found.needed(found.target(target))] == needed


@pytest.mark.parametrize("target", ["nosuch", "4", "-1"])
def test_no_such_target(target: str) -> None:
    with pytest.raises(Invalid, match=f"failed to reach build target {target} in Dockerfile"):
        plan(parse(DOCKERFILE)).target(target)


def test_a_stage_sees_only_those_before_it() -> None:
    found = plan(parse("FROM x AS x\nFROM y AS y"))
    assert found.find("x", 0) is None
    assert found.find("y", 1) is None
    assert found.find("x", 1) is found.stages[0]


def test_of_two_stages_with_one_name_the_later_counts() -> None:
    found = plan(parse("FROM a AS x\nFROM b AS x\nFROM x"))
    assert found.find("x", 2) is found.stages[1]

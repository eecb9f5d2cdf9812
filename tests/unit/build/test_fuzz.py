"""No Dockerfile brings the front end down: it is read, or refused with the line that is wrong."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from boxship.build import configuration as configure
from boxship.build.parser import INSTRUCTIONS, parse
from boxship.build.stages import plan
from boxship.errors import BoxshipError, Invalid
from boxship.oci.ignore import Patterns
from boxship.oci.image_config import ExecutionConfig

PIECES = st.sampled_from([
    *INSTRUCTIONS, "from", "Run", "FOO", "scratch", "AS", "as", "a", "b=c", "=", "--from=0", "--chown=1:2", "--", "--x",
    "--mount=y", '["a", "b"]', "[", "]", '"', "'", "\\", "\\\n", "`", "$", "${", "}", "${a:-b}", "<<EOF", "#", "# escape=`\n",
    "\n", "\n\n",
    "\r\n", " ", "\t", "CMD", "NONE", "--interval=5s", "80/tcp", "\0", "é", "\u2028", "\ufeff", "9" * 30,
])  # fmt: skip
DOCKERFILES = st.lists(PIECES, max_size=25).map(" ".join) | st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=80)


@settings(max_examples=400)
@given(DOCKERFILES)
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        plan(parse(text))
    except BoxshipError as error:
        whole = error.message in ("the Dockerfile cannot be empty", "no build stage in current context: the Dockerfile has no FROM")
        line = re.search(r"\bline (\d+):", error.message)
        assert whole or (line and 1 <= int(line[1]) <= text.count("\n") + 1), error.message


@given(DOCKERFILES)
def test_every_instruction_is_in_the_text(text: str) -> None:
    try:
        instructions = parse("FROM scratch\n" + text).instructions
    except BoxshipError:
        return
    lines = [instruction.line for instruction in instructions]
    assert lines == sorted(set(lines))
    assert all(instruction.name in INSTRUCTIONS for instruction in instructions)


@given(st.lists(st.text(alphabet="0123456789-/:tcpudx", max_size=12), max_size=4))
def test_any_port_is_taken_or_refused(words: list[str]) -> None:
    try:
        ports = configure.with_ports(ExecutionConfig(), words, 3).exposed_ports or {}
    except Invalid as error:
        assert "line 3" in error.message
    else:
        assert all(re.fullmatch(r"\d{1,5}/(tcp|udp|sctp)", port) for port in ports)


@given(st.text(alphabet="0123456789.hmsnuµ", max_size=12))
def test_any_duration_is_a_number_or_none(text: str) -> None:
    nanoseconds = configure.parse_duration(text)
    assert nanoseconds is None or nanoseconds >= 0


@given(st.text(alphabet="ab*?[]!/\\.#\n ^-", max_size=30), st.text(alphabet="ab/.", min_size=1, max_size=12))
def test_any_ignore_file_gives_an_answer(text: str, path: str) -> None:
    assert (path in Patterns(text)) in (True, False)

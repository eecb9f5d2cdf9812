"""A Dockerfile's text as instructions, each with its line."""

from __future__ import annotations

import pytest

from boxship.build.parser import INSTRUCTIONS, ParseError, parse
from boxship.build.stages import plan
from boxship.errors import Invalid, Unsupported


def texts(dockerfile: str) -> list[tuple[str, int, str]]:
    return [(each.name, each.line, each.text) for each in parse(dockerfile).instructions]


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM a\nRUN b", [("FROM", 1, "a"), ("RUN", 2, "b")]),
        ("from a\nrun b\n", [("FROM", 1, "a"), ("RUN", 2, "b")]),
        ("\ufeffFROM a\n", [("FROM", 1, "a")]),
        ("FROM a\r\nRUN b \\\r\n  c\r\n", [("FROM", 1, "a"), ("RUN", 2, "b   c")]),
        ("# comment\n\n  # another\n  FROM   a  \n", [("FROM", 4, "a")]),
        ("RUN a \\\n  b\\\n  c\nCMD x", [("RUN", 1, "a   b  c"), ("CMD", 4, "x")]),
        ("RUN a \\\n# in between\n\n  b\nCMD x", [("RUN", 1, "a   b"), ("CMD", 5, "x")]),
        ("RUN a \\  \nb", [("RUN", 1, "a b")]),
        ("RUN a \\", [("RUN", 1, "a")]),
        ("RUN a # no comment", [("RUN", 1, "a # no comment")]),
        ("RUN\ta\tb", [("RUN", 1, "a\tb")]),
        ("RUN a\\b", [("RUN", 1, "a\\b")]),
        ("# escape=`\nRUN a `\n b\\\nCMD c:\\", [("RUN", 2, "a  b\\"), ("CMD", 4, "c:\\")]),
        ("# syntax=docker/dockerfile:1\n# escape=`\nRUN a `\n b", [("RUN", 3, "a  b")]),
        ("# just words\n# escape=`\nRUN a `\nCMD b", [("RUN", 3, "a `"), ("CMD", 4, "b")]),
        ("CMD\nENTRYPOINT", [("CMD", 1, ""), ("ENTRYPOINT", 2, "")]),
    ],
)
def test_instructions(dockerfile: str, expected: list[tuple[str, int, str]]) -> None:
    assert texts(dockerfile) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["a", "b c"]', ("a", "b c")),
        ("[]", ()),
        ('["\\u00e9\\n"]', ("é\n",)),
        ("['a']", None),
        ('["a", 1]', None),
        ('["a"', None),
        ('["a"] b', None),
        ("a b", None),
    ],
)
def test_the_json_form(text: str, words: tuple[str, ...] | None) -> None:
    assert parse(f"RUN {text}").instructions[0].words == words


def test_brackets_are_no_json_form_where_there_is_none() -> None:
    assert parse('ENV a=["b"]').instructions[0].words is None


def test_flags() -> None:
    instruction = parse("COPY --from=base --chown=1:2 --chmod=755 a b").instructions[0]
    assert instruction.flags == {"from": "base", "chown": "1:2", "chmod": "755"}
    assert instruction.text == "a b"


def test_two_dashes_end_the_flags() -> None:
    instruction = parse("COPY -- --from=a b").instructions[0]
    assert (instruction.flags, instruction.text) == ({}, "--from=a b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FOO bar", "unknown instruction: FOO"),
        ("COPPY a b", "unknown instruction: COPPY (did you mean COPY?)"),
        ("COPY --bogus=1 a b", "unknown flag: --bogus"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
        ("ENV --x=1 a=b", "unknown flag: --x"),
        ("CMD --x", "unknown flag: --x"),
        ("RUN", "RUN requires at least one argument"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=1 b", 'Syntax error - can\'t find = in "b". Must be of the form: name=value'),
        ("ENV =1", "ENV names can not be blank"),
        ("LABEL a=1 =2", "LABEL names can not be blank"),
        ("ARG =1", "ARG names can not be blank"),
        ("COPY a", "COPY requires at least two arguments, but only one was provided. Destination could not be determined"),
        ('ADD ["a"]', "ADD requires at least two arguments, but only one was provided. Destination could not be determined"),
        ("COPY --from=$x a b", "variable expansion is not supported for --from, define a stage of that image instead"),
        ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ('VOLUME ["a", " "]', "VOLUME specified can not be an empty string"),
        ("HEALTHCHECK FOO", "unknown type 'FOO' in HEALTHCHECK (try \"CMD\")"),
        ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK --interval=x CMD a", 'invalid duration "x" of --interval'),
        ("HEALTHCHECK --timeout=1us CMD a", "Interval '1us' of --timeout cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries must be a number, not '-1'"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD COPY a", "COPY requires at least two arguments, but only one was provided. Destination could not be determined"),
        ("ONBUILD FOO", "unknown instruction: FOO"),
        ("FROM a as", "FROM requires either one or three arguments"),
        ("FROM a is b", "FROM requires either one or three arguments"),
        ("FROM a as 1x", 'invalid name for build stage: "1x", name can\'t start with a number or contain symbols'),
    ],
)
def test_errors_name_their_line(line: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        plan(parse(f"FROM scratch\n\n# comment\n{line}\n"))
    assert caught.value.message == f"dockerfile parse error on line 4: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# escape=x\nFROM a", "dockerfile parse error on line 1: invalid ESCAPE 'x': must be ` or \\"),
        ("# escape=`\n# escape=`\nFROM a", "dockerfile parse error on line 2: only one escape parser directive can be used"),
        ("FROM a\nRUN b\0", "dockerfile parse error on line 2: NUL characters cannot be part of an instruction"),
        ("RUN a\nFROM b", "dockerfile parse error on line 1: no build stage in current context: FROM must come first"),
        ("ARG a", "no build stage in current context: the Dockerfile has no FROM"),
        ("# nothing\n\n", "the Dockerfile cannot be empty"),
        ("", "the Dockerfile cannot be empty"),
    ],
)
def test_errors_of_the_whole(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan(parse(text))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("RUN --mount=type=cache,target=/x true", "RUN --mount"),
        ("RUN --network=none true", "RUN --network"),
        ("RUN --security=insecure true", "RUN --security"),
        ("COPY --link a b", "COPY --link"),
        ("COPY --exclude=x a b", "COPY --exclude"),
        ("ADD --checksum=sha256:0 a b", "ADD --checksum"),
        ("RUN cat <<EOF", "here-documents"),
        ("RUN <<-'END' sh", "here-documents"),
        ("COPY <<file /x", "here-documents"),
    ],
)
def test_what_only_buildkit_has_is_named(line: str, named: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse(f"FROM a\n{line}\n")
    assert "line 2" in caught.value.message
    assert named in caught.value.message


def test_a_shift_is_no_here_document() -> None:
    assert parse("RUN echo $((1<<2)) $((x<<y))").instructions[0].text == "echo $((1<<2)) $((x<<y))"


def test_every_instruction_is_known() -> None:
    assert len(INSTRUCTIONS) == 18

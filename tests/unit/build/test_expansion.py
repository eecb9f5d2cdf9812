"""Variables, quotes and escapes in an instruction's words."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxship.build.expansion import expand, split_words
from boxship.errors import Invalid

VALUES = {"a": "A", "b": "B C", "empty": "", "path": "/usr/lib/libfoo.so.1", "x_1": "X"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$a", "A"),
        ("${a}", "A"),
        ("$a$b", "AB C"),
        ("$x_1.y", "X.y"),
        ("$ab", ""),
        ("${a}b", "Ab"),
        ("$nothing", ""),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1", ""),
        ("\\$a", "$a"),
        ("\\\\", "\\"),
        ("\\a", "a"),
        ("'$a'", "$a"),
        ("'a\\b'", "a\\b"),
        ('"$a \\"q\\" \\$a \\n"', 'A "q" $a \\n'),
        ("a'b'\"c\"d", "abcd"),
        ("''", ""),
        ("${a:-x}", "A"),
        ("${nothing:-x}", "x"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${nothing-x}", "x"),
        ("${nothing:-$a}", "A"),
        ("${nothing:-${other:-deep}}", "deep"),
        ("${nothing:-'}'}", "}"),
        ("${a:+yes}", "yes"),
        ("${nothing:+yes}", ""),
        ("${empty:+yes}", ""),
        ("${empty+yes}", "yes"),
        ("${a:?message}", "A"),
        ("${path#*/}", "usr/lib/libfoo.so.1"),
        ("${path##*/}", "libfoo.so.1"),
        ("${path%.*}", "/usr/lib/libfoo.so"),
        ("${path%%.*}", "/usr/lib/libfoo"),
        ("${path/lib/LIB}", "/usr/LIB/libfoo.so.1"),
        ("${path//lib/LIB}", "/usr/LIB/LIBfoo.so.1"),
        ("${path//lib/}", "/usr//foo.so.1"),
        ("${nothing#x}", ""),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, VALUES.get) == expected


def test_another_escape() -> None:
    assert expand("c:\\x`$a", VALUES.get, "`") == "c:\\x$a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'a", 'failed to process "\'a": unexpected end of statement while looking for matching single-quote'),
        ('"a', 'failed to process "\\"a": unexpected end of statement while looking for matching double-quote'),
        ("${a", "failed to process \"${a\": unexpected end of statement while looking for matching '}'"),
        ("${}", 'failed to process "${}": bad substitution: a name must follow ${'),
        ("${a!b}", 'failed to process "${a!b}": unsupported modifier (!) in substitution'),
        ("${nothing:?is needed}", 'failed to process "${nothing:?is needed}": nothing: is needed'),
        ("${nothing?}", 'failed to process "${nothing?}": nothing: parameter is not set'),
        ("${a/b}", 'failed to process "${a/b}": bad substitution: a second / is missing'),
    ],
)
def test_malformed(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        expand(text, VALUES.get)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("a='b c' d", ["a='b c'", "d"]),
        ('a="b \\" c" d', ['a="b \\" c"', "d"]),
        ("a\\ b c", ["a\\ b", "c"]),
        ("'a\\' b", ["'a\\'", "b"]),
        ("", []),
        (" \t ", []),
        ("'open end", ["'open end"]),
    ],
)
def test_splitting(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text(alphabet="$ab{}:-+?#%/'\"\\ *[]!é\n0", max_size=30))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        expand(text, VALUES.get)
    except Invalid as error:
        assert error.message.startswith("failed to process ")


@given(st.text(alphabet=string.ascii_letters + string.digits + " /.:=-_", max_size=50))
def test_text_without_special_characters_stays(text: str) -> None:
    assert expand(text, VALUES.get) == text


@given(st.text(max_size=30).filter(lambda text: "'" not in text))
def test_single_quotes_keep_everything(text: str) -> None:
    assert expand(f"'{text}'", VALUES.get) == text


@given(st.lists(st.text(alphabet="abc$'\"\\", min_size=1, max_size=6).map(lambda word: "'" + word.replace("'", "") + "'")))
def test_quoted_words_are_found_again(words: list[str]) -> None:
    assert split_words("  ".join(words)) == words

"""Which paths of a context a build does not see."""

from __future__ import annotations

import pytest

from boxship.oci.ignore import Patterns


@pytest.mark.parametrize(
    ("rules", "ignored", "seen"),
    [
        ("", [], ["a", ".git"]),
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("a/", ["a", "a/b"], ["b"]),
        ("./a/../b", ["b", "b/c"], ["a"]),
        ("*.md", ["x.md", ".md"], ["a/x.md", "x.mdx"]),
        ("*/*.md", ["a/x.md"], ["x.md", "a/b/x.md"]),
        ("**/*.md", ["x.md", "a/x.md", "a/b/c/x.md"], ["x.txt"]),
        ("a/**", ["a/b", "a/b/c"], ["b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/x/b/c"], ["a/x", "b"]),
        ("**", ["a", "a/b"], []),
        ("temp?", ["temp1", "tempa/b"], ["temp", "temp12"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt"]),
        ("[^ab].txt", ["c.txt"], ["a.txt", "b.txt"]),
        ("# a\na", ["a"], ["#", "# a"]),
        ("\\#a", ["#a"], ["a"]),
        ("  a  \n\n", ["a"], ["b"]),
        ("a\r\nb\r\n", ["a", "b"], ["c"]),
        ("\ufeffa", ["a"], []),
        ("*\n!keep", ["a", "b/c"], ["keep", "keep/x"]),
        ("*.md\n!README.md", ["x.md"], ["README.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["x.md", "README-secret.md"], ["README.md", "README-a.md"]),
        ("!README.md\n*.md", ["README.md"], []),
        ("a\n!a/b\na/b/c", ["a/x", "a/b/c"], ["a/b", "a/b/d"]),
        (".\n", [], ["a"]),
        ("!\n", [], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a+(b)", ["a+(b)"], ["aab"]),
        ("[", ["["], ["a"]),
    ],
)
def test_rules(rules: str, ignored: list[str], seen: list[str]) -> None:
    patterns = Patterns(rules)
    assert [path for path in ignored if path not in patterns] == []
    assert [path for path in seen if path in patterns] == []

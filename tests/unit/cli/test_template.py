"""`--format`: Go's templates."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxship.cli.template import compile_template
from boxship.errors import Invalid

DOCUMENT = {"Name": "web", "Ports": {"80/tcp": [{"HostPort": "8080"}]}, "Count": 3, "Nothing": None, "Labels": {"a": "b"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Name}}", "web"),
        ("{{json .Labels}}", '{"a":"b"}'),
        (r"{{.Name}}\t{{.Count}}", "web\t3"),
        ('{{index .Labels "a"}}', "b"),
        ("{{range $port, $_ := .Ports}}{{$port}}{{end}}", "80/tcp"),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{if .Nothing}}yes{{else}}no{{end}}", "no"),
        ("{{with .Name}}<{{.}}>{{end}}", "<web>"),
        ("{{upper .Name | printf `%5s`}}", "  WEB"),
        ("{{ .Name -}}  x", "webx"),
        ("{{len .Ports}} {{eq .Count 3}}", "1 true"),
    ],
)
def test_templates(text: str, expected: str) -> None:
    assert compile_template(text)(DOCUMENT) == expected


@pytest.mark.parametrize(
    "text", ["{{", "{{.Name", "{{if .Name}}", "{{end}}", "{{nosuch .Name}}", "{{.NoSuchField}}", "{{(.Name}}", "{{0 N}}"]
)
def test_a_broken_template_is_an_error(text: str) -> None:
    with pytest.raises(Invalid, match="template parsing error"):
        compile_template(text)(DOCUMENT)


@given(st.text(alphabet='{}. $|()"`\\-:=,%dsNameif range end else with json index 0123456789', max_size=60))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    with contextlib.suppress(Invalid):
        compile_template("{{" + text + "}}")(DOCUMENT)
    with contextlib.suppress(Invalid):
        compile_template(text)(DOCUMENT)

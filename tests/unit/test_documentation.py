"""What there is, is documented; what the documents point to, is there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from boxship.cli.main import COMMANDS
from boxship.daemon.configuration import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("folder", ["docs", "docs/decisions"])
def test_every_page_is_listed(folder: str) -> None:
    listed = (ROOT / folder / "README.md").read_text()
    pages = {page.name for page in (ROOT / folder).glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"]({name})" not in listed} == set()


def test_every_setting_of_the_daemon_is_documented() -> None:
    text = (ROOT / "docs" / "daemon.md").read_text()
    names = {field.name.replace("_", "-") for field in fields(Settings)}
    assert {name for name in names if f"`{name}`" not in text and f"--{name}" not in text} == set()


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    assert {name for name in COMMANDS if not re.search(rf"\b{re.escape(name)}\b", text)} == set()

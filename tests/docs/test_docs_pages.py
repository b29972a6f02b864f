"""Links lead somewhere, the README keeps its shape, and no page names a path of somebody's machine."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from docs_pages import PAGES, ROOT, anchors, blocks, links, name_of

EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)


@EVERY_PAGE
def test_every_link_between_pages_resolves(page):
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = unquote(link).partition("#")
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{link} leads nowhere"
        assert found.is_relative_to(ROOT), f"{link} leaves the repository"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{link}: there is no such heading; there are {anchors(found)}"


def test_every_page_can_be_reached_from_the_readme():
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        inside = (link.partition("#")[0] for link in links(page) if "://" not in link)
        todo.extend((page.parent / target).resolve() for target in inside if target)
    assert set(PAGES) - seen == set()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_readme_shows_a_complete_program_within_sixty_words():
    first = next(blocks(ROOT / "README.md"))
    assert first.language == "python"
    assert len(first.before.split()) <= 60
    assert "CFQueue(" in first.text
    assert ".send" in first.text


@EVERY_PAGE
def test_no_page_names_a_path_of_a_machine(page):
    text = page.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    found = re.search(r"(?<![\w.])/(home|root|Users|work|tmp|workspace|mnt)/\S*", text)
    assert found is None, found


def test_the_picture_is_well_formed_and_says_what_it_shows():
    from xml.etree import ElementTree as ET

    picture = ET.parse(ROOT / "docs" / "life-of-a-message.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{space}svg"
    for element in ("title", "desc"):
        found = picture.find(f"{space}{element}")
        assert found is not None
        assert found.text

"""The pages hang together: each can be reached from the README, and links lead to headings that exist."""

import re
from pathlib import Path

import pytest

from tests.processes import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s:]*?)(?:#([^)\s]+))?\)")


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page links to, each with the heading's anchor or an empty text."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [((page.parent / name).resolve() if name else page, anchor) for name, anchor in LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """The anchors that the headings of a page have on GitHub."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, next_ = {ROOT / "docs" / "README.md"}, [ROOT / "README.md", ROOT / "docs" / "README.md"]
    while next_:
        page = next_.pop()
        if page not in reached and page.suffix == ".md" and page.is_file():
            reached.add(page)
            next_ += [target for target, _ in links(page)]
    assert [page.name for page in PAGES if page not in reached] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    wrong = [(target.name, anchor) for target, anchor in links(page) if anchor and anchor not in anchors(target)]
    assert wrong == []


def test_the_picture_of_the_report_card_is_in_the_readme_and_small() -> None:
    picture = ROOT / "docs" / "report_card.png"
    assert "](docs/report_card.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) < 200_000
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (960, 980)
    assert "docs/report_card.png" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_a_heading_becomes_the_anchor_that_it_has_on_github() -> None:
    assert "connections-are-reset-chunked-headers-http-method-t" in anchors(ROOT / "docs" / "troubleshooting.md")

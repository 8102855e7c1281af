"""Links between pages, and the link check of the built site."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import GENERATED, NAMES, PAGES, ROOT, without_code
from tools.check_site import broken_links

WRITTEN_BY_THE_BUILD = GENERATED | {
    ROOT / "docs" / name for name in ("reference/cli.md", "reference/python.md", "reference/pocket.md")
}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub name them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_to_a_file_and_a_heading(page) -> None:
    text = re.sub(r"`[^`]*`", "", without_code(page.read_text(encoding="utf-8")))
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        address, _, anchor = link.partition("#")
        target = (page.parent / address).resolve() if address else page
        if target in WRITTEN_BY_THE_BUILD:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_the_site_check_finds_missing_files_and_anchors(tmp_path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="sub/#here">1</a><a href="sub/#nope">2</a><a href="https://x.org">3</a>'
    )
    (tmp_path / "sub" / "index.html").write_text('<h2 id="here">1</h2><img src="../no.png"><a href="..">2</a>')
    assert broken_links(tmp_path) == ["index.html: sub/#nope", "sub/index.html: ../no.png"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_named_files_and_tests_exist(page) -> None:
    code = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    files = [name for name in code if re.fullmatch(r"(src|tests|tools|docs)/[\w./+-]+", name)]
    tests = [name for name in code if re.fullmatch(r"(test_\w+|Test\w+)", name)]
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in files if not (ROOT / name).exists()]
    missing += [name for name in tests if f"def {name}(" not in source and f"class {name}:" not in source]
    # The changelog names what an old version had.
    assert not missing or page.name == "CHANGELOG.md"

"""Checks every internal link, anchor and image of the built documentation site: `python -m tools.check_site site`."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken_links(site: Path) -> list[str]:
    """Each internal link whose file or anchor does not exist, as "page: link"."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    # The error page is served under any address, so its links are relative to the site's address.
    return [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        if path.name != "404.html"
        for link in page.links
        if not _exists(path, link, pages)
    ]


def _exists(path: Path, link: str, pages: dict[Path, _Page]) -> bool:
    if urlparse(link).scheme:
        return True
    address, anchor = urldefrag(link)
    target = (path.parent / unquote(address)).resolve() if address else path
    target = target / "index.html" if target.is_dir() else target
    if not target.exists():
        return False
    return not anchor or target not in pages or unquote(anchor) in pages[target].anchors


if __name__ == "__main__":
    broken = broken_links(Path(sys.argv[1]).resolve())
    print("\n".join(f"broken link: {line}" for line in broken) or "all internal links are correct")
    sys.exit(bool(broken))

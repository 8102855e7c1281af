"""The Markdown pages of the project, without the generated ones."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = {ROOT / "docs" / "quickstart.md", *(ROOT / "docs" / "reference").glob("*.md")}
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "hub" / "README.md", ROOT / "src/iava/pocket/README.md"}
    - GENERATED
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def without_code(text: str) -> str:
    """The text with an empty line in place of each code block and each HTML comment."""
    return re.sub(r"^ *```.*?^ *```$|<!--.*?-->", "\n", text, flags=re.DOTALL | re.MULTILINE)

"""Writes docs/families.md from the outcomes of the family tests: `python -m tools.families`."""

import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "families.md"
TESTS = "tests/test_families.py"
CLAIMS = {
    "test_no_contrast_is_plain_generate": "equals `generate` without contrast",
    "test_attention_selection_and_tokens_equal_the_naive_method": "equals the reference decoder",
    "test_a_batch_equals_the_singles": "batch equals single prompts",
    "test_two_images_in_one_prompt": "two images in a prompt",
    "test_the_model_is_left_as_found": "model is left unchanged",
    "test_negatives_equal_their_references[drop]": "`drop`",
    "test_negatives_equal_their_references[hide]": "`hide`",
    "test_negatives_equal_their_references[pixels]": "`pixels`",
    "test_negatives_equal_their_references[blur]": "`blur`",
    "test_what_begins_alike_is_read_once": "shared image prefix",
}
"""Test of a claim -> its column."""
HEAD = """# Families

`python -m tools.families` writes this page.
Each cell is the outcome of a test on a tiny random model of the family.
The model has the family's own processor and runs on transformers {version}.

- "refused": the method raises an `IavaError` that names the reason.
- "no": the answers are the same, but the image is computed once per prompt.
- "-": does not apply to the family.

"""
REFUSED = """
## Refused

These families and architectures raise an `IavaError`:

| family | reason |
|---|---|
"""


class Outcomes:
    """A pytest plugin that collects the outcomes of the family tests.

    A test sets the property "cell" to what its cell says instead of "yes", or "reason" to why a family is refused.
    """

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, set[str]]] = {}
        self._reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" or TESTS not in report.nodeid:
            return
        test = report.nodeid.split("::")[-1]
        properties = dict(report.user_properties)
        if "reason" in properties:
            self._reasons[test.partition("[")[2].rstrip("]")] = properties["reason"]
        if "TestFamily::" not in report.nodeid:
            return
        claim, _, parameters = test.partition("[")
        parameters = parameters.removesuffix("]")
        # The id of a test with two parameters joins the family and the other parameter, in either order.
        longest_first = sorted(_families(), key=len, reverse=True)
        family = next(name for name in longest_first if parameters.startswith(name) or parameters.endswith(name))
        variant = parameters.removeprefix(family).removesuffix(family).strip("-")
        column = f"{claim}[{variant}]" if f"{claim}[{variant}]" in CLAIMS else claim
        outcome = properties.get("cell", "yes") if report.passed else {"skipped": "-"}.get(report.outcome, "FAILS")
        self._cells.setdefault(family, {}).setdefault(column, set()).add(outcome)

    def page(self) -> str | None:
        """Returns the page, or None if some of the tests did not run."""
        if not self._cells or not self._reasons:
            return None
        if any(claim not in self._cells.get(name, {}) for name in _families() for claim in CLAIMS):
            return None
        lines = ["| family | " + " | ".join(CLAIMS.values()) + " |", "|---" * (len(CLAIMS) + 1) + "|"]
        for name in _families():
            cells = [" / ".join(sorted(self._cells[name][claim])) for claim in CLAIMS]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        # Sorted: tests in several processes report in any order.
        refused = "".join(f"| {name} | {reason} |\n" for name, reason in sorted(self._reasons.items()))
        version = ".".join(transformers.__version__.split(".")[:2])
        return HEAD.format(version=version) + "\n".join(lines) + "\n" + REFUSED + refused


def _families() -> list[str]:
    from tests.families import FAMILIES

    return list(FAMILIES)


def main() -> int:
    """Runs the family tests and writes the page; returns an exit code."""
    outcomes = Outcomes()
    pytest.main(["--no-page", "-m", "families", str(ROOT / TESTS)], [outcomes])
    page = outcomes.page()
    if page is None:
        print("the family tests did not run to the end", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes `docs/families.md` from the outcome of the family tests, or fails the run if the file says otherwise."""

from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
CLAIMS = {
    "test_no_contrast_is_plain_generate": "without contrast exactly `generate`",
    "test_attention_selection_and_tokens_equal_the_naive_method": "equals the naive method",
    "test_a_batch_equals_the_singles": "batch equals singles",
    "test_two_images_in_one_prompt": "two images a prompt",
    "test_the_model_is_left_as_found": "model left as found",
    "test_negatives_equal_their_references[drop]": "`drop`",
    "test_negatives_equal_their_references[hide]": "`hide`",
    "test_negatives_equal_their_references[pixels]": "`pixels`",
    "test_what_begins_alike_is_read_once": "an image is read once",
}
HEAD = """# Families

Written by the test run (`pytest tests/test_families.py --write-families`), never by hand: each cell is the outcome of a
test on a tiny random model of the family with its real processor, on transformers {version}. "refused": the method says
why it cannot; "no": the same answers, without the saving; "-": the family has no such thing.

"""
REFUSED = """
## Refused

What cannot be served is refused with a `ValueError` that names the reason:

| family | reason |
|---|---|
"""

_cells: dict[str, dict[str, set[str]]] = {}
_reasons: dict[str, str] = {}


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--write-families", action="store_true", help="write docs/families.md from this run")


def pytest_runtest_logreport(report: Any) -> None:
    if report.when != "call" or "test_families.py" not in report.nodeid:
        return
    test = report.nodeid.split("::")[-1]
    properties = dict(report.user_properties)
    if "reason" in properties:
        _reasons[test.partition("[")[2].rstrip("]")] = properties["reason"]
    if "TestFamily::" not in report.nodeid:
        return
    claim, _, parameters = test.partition("[")
    parameters = parameters.removesuffix("]")
    # A test with a parameter of its own is called by both, in either order.
    known = next(name for name in _names() if parameters.startswith(name) or parameters.endswith(name))
    variant = parameters.removeprefix(known).removesuffix(known).strip("-")
    column = f"{claim}[{variant}]" if f"{claim}[{variant}]" in CLAIMS else claim
    outcome = properties.get("cell", "yes") if report.passed else {"skipped": "-"}.get(report.outcome, "FAILS")
    _cells.setdefault(known, {}).setdefault(column, set()).add(outcome)


def _names() -> list[str]:
    from tests.families import FAMILIES

    return sorted(FAMILIES, key=len, reverse=True)


def _page() -> str | None:
    """The page that this run says, or None if it did not run everything."""
    import transformers

    from tests.families import FAMILIES

    if any(claim not in _cells.get(name, {}) for name in FAMILIES for claim in CLAIMS) or not _reasons:
        return None
    lines = ["| family | " + " | ".join(CLAIMS.values()) + " |", "|---" * (len(CLAIMS) + 1) + "|"]
    for name in FAMILIES:
        cells = [" / ".join(sorted(_cells[name][claim])) for claim in CLAIMS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    refused = "".join(f"| {name} | {reason} |\n" for name, reason in _reasons.items())
    version = ".".join(transformers.__version__.split(".")[:2])
    return HEAD.format(version=version) + "\n".join(lines) + "\n" + REFUSED + refused


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: Any) -> None:
    page = _page()
    if page is None:
        return
    if session.config.getoption("--write-families"):
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        print(f"\n{PAGE.name} does not say what this run says: pytest tests/test_families.py --write-families")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

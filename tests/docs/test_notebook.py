"""The quickstart notebook runs, and prints what is stored in it."""

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.docs


def texts(notebook) -> list[str]:
    """What each cell prints."""
    return [
        "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_prints_what_is_stored(monkeypatch) -> None:
    import nbclient
    import nbformat

    # As on a machine without a network.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stored = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    assert any(texts(stored))
    run = nbclient.NotebookClient(nbformat.from_dict(stored), timeout=600).execute()
    assert texts(run) == texts(stored), "run it again: jupyter execute --inplace docs/quickstart.ipynb"

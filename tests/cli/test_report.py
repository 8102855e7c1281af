"""`iava report`: three files, or one line that says why not."""

import re
import shutil

from tests.commands import refused, run
from tests.evaluation.test_frontier import runs, write_captions  # noqa: F401
from tests.made import records, write_run


def test_it_writes_the_page_and_its_tables(tmp_path):
    folders = [write_run(tmp_path / str(n), records(images=2, prefix=f"photo{n}"), shard=f"{n}/2") for n in (1, 2)]
    result = run("report", *folders, "--out", tmp_path / "found.html")
    assert result.exit_code == 0, result.output
    files = [tmp_path / f"found.{ending}" for ending in ("html", "md", "tex")]
    assert result.stdout.split() == [str(file) for file in files]
    assert "48 questions about 4 images" in files[0].read_text()
    assert files[1].read_text().startswith("# iava: report")
    assert r"\begin{tabular}" in files[2].read_text()


def test_a_sweep_of_captions_is_a_frontier(runs, tmp_path):  # noqa: F811
    folder = write_run(tmp_path / "run", records(images=2, prefix="photo"))
    several = write_captions(tmp_path / "several", "greedy", {}, lambda _: ["dog"], split="tune")
    for folders, names in (([*runs], []), ([tmp_path / "sweep"], []), ([folder, *runs, several], ["pope", "chair"])):
        if folders == [tmp_path / "sweep"]:
            (tmp_path / "sweep").mkdir()
            for one in runs:
                shutil.copytree(one, tmp_path / "sweep" / one.name)
        page = tmp_path / "found.html"
        assert run("report", *folders, "--out", page).exit_code == 0
        html, tables = page.read_text(), page.with_suffix(".md").read_text()
        # The controls and VCD, each at the same recall and at the same length.
        assert len(re.findall(r'id="frontier-1-\d-\d"', html)) == 4
        ids = re.findall(r' id="([^"]+)"', html)
        assert len(ids) == len(set(ids))
        assert "Caption frontier: chair · test" in tables
        assert "50% token limit tokens=5 + 50% token limit tokens=50" in tables
        assert "<dt>Seed</dt><dd><div>3</div></dd>" in html
        assert re.findall(r"^## (\w+) · ", tables, re.M) == names
        assert page.with_suffix(".tex").read_text().count("Distance to the frontier") == 1


def test_what_it_refuses(tmp_path):
    folder = write_run(tmp_path / "run", records(images=1, prefix="photo"))
    assert "out is x.pdf: it must end in .html" in refused("report", folder, "--out", "x.pdf")
    assert "there is no folder" in refused("report", folder, "--out", tmp_path / "no" / "x.html")
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused("report", tmp_path / "empty", "--out", tmp_path / "x.html")
    (folder / "records.jsonl").write_text("{}\n")
    assert "line 1, is no record" in refused("report", folder, "--out", tmp_path / "x.html")
    assert not list(tmp_path.glob("x.*"))

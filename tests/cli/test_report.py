"""`iava report`: three files, or one line that says why not."""

from tests.commands import refused, run
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


def test_what_it_refuses(tmp_path):
    folder = write_run(tmp_path / "run", records(images=1, prefix="photo"))
    assert "out is x.pdf: it must end in .html" in refused("report", folder, "--out", "x.pdf")
    assert "there is no folder" in refused("report", folder, "--out", tmp_path / "no" / "x.html")
    assert "holds no run" in refused("report", tmp_path, "--out", tmp_path / "x.html")
    (folder / "records.jsonl").write_text("{}\n")
    assert "line 1, is no record" in refused("report", folder, "--out", tmp_path / "x.html")
    assert not list(tmp_path.glob("x.*"))

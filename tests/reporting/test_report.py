"""The report holds the values of the results and the examples, is self-contained, and escapes all text."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from iava.benchmarks.registry import benchmark
from iava.evaluation.runs import read_runs
from iava.lvlm.model import LVLM
from iava.reporting.report import Example, report_html, report_latex, report_markdown, write_report
from iava.reporting.sections import report_section
from tests import tiny
from tests.explain.test_page import Reader
from tests.folders import written
from tests.made import METHODS, records, write_run
from tests.metrics.test_shift import on_curve

QUESTION = "Is there a dog in the image ?"
HOSTILE = '"><script>alert(1)</script> \\end{document} | $x$ & `_*'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    [found] = read_runs([write_run(tmp_path_factory.mktemp("report") / "run", records())])
    return found


@pytest.fixture(scope="module")
def section(run):
    return report_section(run)


@pytest.fixture(scope="module")
def html(section):
    lvlm = LVLM(tiny.model(), tiny.processor())
    greedy, iava = (lvlm.ask(tiny.image(), QUESTION, method=name, explain=True) for name in ("greedy", "iava"))
    questions = [(QUESTION, "no", greedy, iava), ("Describe", None, greedy, iava)]
    example = Example("scene-<1>", tiny.image(), questions)
    return report_html([section], [("First images", "without selection", [example]), ("Empty group", "left out", [])])


def links_of_self_contained(html):
    """The links of a page, all of which must be data URIs or anchors."""
    links = Reader(html).links
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert not re.search(r"https?://|@import|url\((?!data:|#)", html)
    return links


def test_it_is_self_contained(html):
    # The thumbnails of pocket scenes are among the links.
    assert len(links_of_self_contained(html)) > 2


def test_it_shows_images_questions_and_answers(html):
    page = Reader(html)
    assert len(page.panes) == 8
    assert [len(attention["maps"]) for attention in page.data] == [1, 1]
    for words in ("scene-<1>", QUESTION, "First images", "without selection"):
        assert words in page.text
    assert "Empty group" not in page.text
    # One of the two questions has a truth, and two answers that are right or wrong.
    assert page.text.count("✗") + page.text.count("✓") == 2


def test_it_shows_every_value_and_interval(html, run):
    page = Reader(html)
    for result in run.rows:
        assert f"{100 * result['metrics']['accuracy']:.1f}" in page.text
        low, high = (f"{100 * limit:.1f}" for limit in result["intervals"]["f1"])
        assert f"[{low}, {high}]" in page.text
        if result["comparison"]:
            assert f"{100 * result['comparison']['difference']:+.1f}" in page.text
    assert "the best control (" in page.text


def test_it_says_how_the_run_was_made(html):
    page = Reader(html)
    for words in (
        "iava eval pope",
        "USER: <image>",
        "exactly one of the words yes and no",
        "pope · test",
        "abacus",
        "bias=1.5",
        "144 questions",
    ):
        assert words in page.text


def answers(run, method):
    found = {r["id"]: r for r in run.records if r["method"] == method}
    return {id: (r["parsed"] == "yes", r["parsed"] == r["truth"]) for id, r in found.items()}


def test_beyond_a_constant_bias_counted_by_hand(run, section):
    assert section.beyond_bias
    cells = {row.name: row.cells for row in section.beyond_bias.rows}
    greedy = [r for r in run.records if r["method"] == "greedy"]
    margins, truths = [r["yes"] - r["no"] for r in greedy], [r["truth"] for r in greedy]
    for method, name in (("apc", "APC-only"), ("iava", "IAVA")):
        said, right = (np.mean(values) for values in zip(*answers(run, method).values(), strict=True))
        alone = on_curve(margins, truths, said)
        numbers = [f"{100 * said:.1f}", f"{100 * right:.1f}", f"{100 * alone:.1f}", f"{100 * (right - alone):+.1f}"]
        assert [cell.text for cell in cells[name][:4]] == numbers
    assert cells["constant bias"][3].text in ("+0.0", "-0.0")
    assert cells["constant bias"][3].note == "[+0.0, +0.0]"
    # Adding a constant to margins does not change the accuracy at their best threshold.
    assert cells["constant bias"][5].text in ("+0.0", "-0.0")
    assert float(cells["IAVA"][4].text) >= float(cells["IAVA"][1].text)


def test_changed_answers_counted_by_hand(run, section):
    assert section.changes
    cells = {row.name: [cell.text for cell in row.cells] for row in section.changes.rows}
    by_question = {
        method: {(r["image"], r["question"]): r["parsed"] == r["truth"] for r in run.records if r["method"] == method}
        for method in ("greedy", "iava")
    }
    pairs = [(by_question["greedy"][key], right) for key, right in by_question["iava"].items()]
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    assert gained
    assert lost
    assert cells["IAVA"] == ["greedy", str(len(pairs)), str(gained), str(lost), f"{gained - lost:+d}"]
    assert [(strip.method, strip.gained, strip.total) for strip in section.strips] == [
        ("IAVA", True, gained),
        ("IAVA", False, lost),
    ]


def colour(uri):
    return uri and Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).getpixel((0, 0))


def test_thumbnails_of_data_on_disk_are_shown_while_the_data_exist(tmp_path):
    data = written(tmp_path / "data")
    task = benchmark("pope-gqa").load(data / "pope-gqa")
    some = []
    for question, (greedy, ours) in zip(task.questions, [("no", "yes"), ("no", "yes")] * 3, strict=True):
        for method, said in (("greedy", greedy), ("iava", ours)):
            record = {"id": question.id, "image": question.image, "split": "test", "category": "random"}
            record |= {"method": method, "question": question.question, "truth": question.truth, "text": said}
            some.append(record | {"parsed": said, "yes": 0.0, "no": 1.0, "seconds": 0.1})
    folder = write_run(
        tmp_path / "run",
        some,
        {"greedy": {}, "iava": {}},
        benchmark="pope-gqa",
        split=task.split,
        questions=task.digest,
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"data": str(data)}))

    def colours():
        [run] = read_runs([folder])
        strips = report_section(run).strips
        return [{one.image: colour(one.picture) for one in strip.thumbnails} for strip in strips]

    # One strip for gained and one for lost answers. The third image is broken.
    assert colours() == [{"red.jpg": (254, 0, 0), "green.jpg": (0, 128, 1), "bad.jpg": None}] * 2
    # After a change of the questions, equal names may belong to other images.
    lines = data / "pope-gqa" / "gqa_pope_random.json"
    lines.write_text(lines.read_text().replace("a cat", "a cow"))
    assert colours() == [dict.fromkeys(("red.jpg", "green.jpg", "bad.jpg"))] * 2
    data.rename(tmp_path / "elsewhere")
    assert colours() == [dict.fromkeys(("red.jpg", "green.jpg", "bad.jpg"))] * 2


def test_markdown_and_latex_hold_the_same_tables(run, section):
    text, tex = report_markdown([section]), report_latex([section])
    assert text.count("### ") == len(section.tables) + 1
    assert tex.count(r"\begin{tabular}") == tex.count(r"\bottomrule") == len(section.tables)
    for result in run.rows:
        for number in (result["metrics"]["accuracy"], result["metrics"]["auc"]):
            assert f"{100 * number:.1f}" in text
            assert f"{100 * number:.1f}" in tex


def test_text_of_runs_is_escaped(tmp_path):
    some = records({"greedy": {}, "iava": {}}, images=3, prefix="photo")
    for record in some:
        record |= {"question": HOSTILE + record["question"], "text": HOSTILE, "category": HOSTILE}
        record |= {"image": record["image"] + HOSTILE}
    folder = write_run(tmp_path / "run", some, {"greedy": {}, "iava": {"general": HOSTILE}}, model=HOSTILE)
    texts = [file.read_text() for file in write_report(tmp_path / "r.html", read_runs([folder]))]
    html, markdown, tex = texts
    assert Reader(html).tags.count("script") == 1
    assert HOSTILE in Reader(html).text
    links_of_self_contained(html)
    assert "<script" not in markdown
    assert r"\end{document}" not in "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    assert all(line.startswith(("\\", "%")) or " & " in line for line in tex.splitlines() if line)


def test_an_incomplete_run_says_so(tmp_path):
    some = records(images=3, prefix="photo")
    for record in some:
        if record["method"] == "iava" or record["image"].endswith("1"):
            record |= {"error": "truncated", "parsed": None, "yes": None, "no": None}
    one = report_section(read_runs([write_run(tmp_path / "run", some)])[0])
    assert one.gaps == [
        "greedy: 24 of 36 questions answered",
        "constant bias: 24 of 36 questions answered",
        "APC-only: 24 of 36 questions answered",
        "IAVA: no question answered",
    ]
    # Twelve questions of three methods, and all 36 of the fourth.
    assert any("72 errors" in value for _, values in one.provenance for value in values)
    text = Reader(report_html([one])).text
    assert "Incomplete run: greedy: 24 of 36" in text


@pytest.mark.parametrize("methods", [["greedy"], ["iava"], ["greedy", "bias"]])
def test_single_methods_and_controls_only(tmp_path, methods):
    chosen = {name: METHODS[name] for name in methods}
    some = [record for record in records(images=3, prefix="photo") if record["method"] in methods]
    one = report_section(read_runs([write_run(tmp_path / "run", some, chosen)])[0])
    headings = one.categories[0][1].headings
    assert ("vs best control" in headings) == (len(methods) > 1)
    assert (one.beyond_bias is None) == (one.changes is None) == (len(methods) == 1)
    assert one.strips == []
    assert bool(one.categories[0][2].curve) == ("greedy" in methods)
    assert ("nothing can be said" in " ".join(one.verdicts)) == (methods == ["iava"])
    links_of_self_contained(report_html([one]))


def test_each_method_stands_beside_the_plain_decoding_of_its_mode(tmp_path):
    methods = {"greedy": {}, "sample": {}, "vcd": {"sampling": True, "temperature": 0.7}, "iava": {}}
    some = records(methods, images=6, prefix="photo")
    one = report_section(read_runs([write_run(tmp_path / "run", some, methods)])[0])
    table = one.categories[0][1]
    assert [(row.name, row.tag) for row in table.rows] == [
        ("greedy", "control"),
        ("IAVA", ""),
        ("sampling", "control, draws"),
        ("VCD", "draws"),
    ]
    assert [row.cells[1].text for row in table.rows][::2] == ["best control", "best that draws"]
    assert one.changes
    assert {row.name: row.cells[0].text for row in one.changes.rows} == {"IAVA": "greedy", "VCD": "sampling"}
    said = dict(one.provenance)["Decoding"]
    assert "greedy: takes the most probable token" in said
    assert "VCD: draws each token, sampling=True, temperature=0.7" in said


def test_without_greedy_decoding_the_curve_is_that_of_sampling(tmp_path):
    methods = {"sample": {}, "vcd": {"sampling": True}}
    some = records(methods, images=6, prefix="photo")
    one = report_section(read_runs([write_run(tmp_path / "run", some, methods)])[0])
    assert one.categories[0][2].curve
    assert one.beyond_bias


def test_answers_that_are_not_yes_or_no_have_tables_only(tmp_path):
    some = [
        {key: value for key, value in record.items() if key not in ("yes", "no")} | {"truth": ["stop"] * 10}
        for record in records({"greedy": {}, "iava": {}}, images=2, prefix="photo")
    ]
    for number, record in enumerate(some):
        # Every other answer of greedy decoding is right, and three of four of IAVA's.
        right = number % 4 < 2 or (record["method"] == "iava" and number % 8 < 4)
        record["text"] = record["parsed"] = "stop" if right else "go"
    folder = write_run(
        tmp_path / "run", some, {"greedy": {}, "iava": {}}, results=False, benchmark="textvqa", parser=None
    )
    one = report_section(read_runs([folder])[0])
    assert [table.title for table in one.tables] == ["Overall · 24 questions"]
    assert one.categories[0][2] is None
    assert one.cost is not None
    assert "75.0" in Reader(report_html([one])).text


def test_several_runs_on_one_page(tmp_path, run):
    other = write_run(tmp_path / "other", records(seed=1, images=2, prefix="photo"), split="elsewhere")
    runs = [run, *read_runs([other])]
    page, markdown, tex = write_report(tmp_path / "all.html", runs)
    text = Reader(page.read_text()).text
    assert "2 runs" in text
    assert "pope · elsewhere" in text
    assert (markdown.name, tex.name) == ("all.md", "all.tex")
    assert markdown.read_text().count("\n## ") == 2

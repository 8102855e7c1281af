"""Sweeps and frontiers of runs that were made by hand, from the folders to the files of the report."""

import json

import pytest

from iava.errors import IavaError
from iava.evaluation.frontier import frontier as frontier_of
from iava.evaluation.frontier import is_trivial, read_chosen, results
from iava.evaluation.plan import Plan
from iava.evaluation.runs import read_runs, run_folders
from iava.evaluation.strengths import STRENGTHS, candidates, sweep_strengths
from iava.methods.registry import names, resolve
from tests.commands import refused, run
from tests.fakes import FakeLVLM
from tests.folders import written

THINGS = ["dog", "cow", "tree", "cup"]
IMAGES = 40


def caption(image, method, said):
    text = f"A place with {' and '.join(said) or 'nothing'}."
    about = {"id": image, "image": image, "split": "test", "category": "caption", "question": "Describe this image."}
    return about | {"method": method, "truth": THINGS[:2], "text": text, "parsed": said, "seconds": 0.1}


def write_captions(folder, method, settings, said, images=IMAGES, **changed):
    """A run of one setting. `said` gives the things that it names in image number n."""
    folder.mkdir(parents=True)
    told = {"benchmark": "chair", "model": "fake", "split": "test", "limit": None, "seed": 3, "weights": "abc"}
    told |= {"methods": {method: settings}} | changed
    (folder / "manifest.json").write_text(json.dumps({"settings": told, "command": "iava sweep chair"}))
    records = [caption(f"test-{n:05d}", method, said(n)) for n in range(images)]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def frontier(folders, **settings):
    return frontier_of(read_runs(run_folders(folders)), **settings)


@pytest.fixture
def runs(tmp_path):
    """Controls: one names the dog alone, one all four things. VCD: a better and a worse setting than their mixture."""
    return [
        write_captions(tmp_path / "a", "token-limit", {"tokens": 5}, lambda _: THINGS[:1]),
        write_captions(tmp_path / "b", "token-limit", {"tokens": 50}, lambda _: THINGS),
        # 60 hits and 20 wrong of 80 mentions: recall 60/80.
        write_captions(
            tmp_path / "c", "vcd", {"alpha": 0.5}, lambda n: [THINGS[:2], ["dog", "tree"]][n % 2], images=IMAGES
        ),
        # Half of the images name everything and the tree twice.
        write_captions(
            tmp_path / "d", "vcd", {"alpha": 2.0}, lambda n: [["dog"], [*THINGS, "tree"]][n % 2], images=IMAGES
        ),
    ]


def test_distances_of_a_frontier_worked_by_hand(runs):
    found = results(frontier(runs))
    by_strength = {one["strength"]: one for one in found["settings"]}
    assert list(by_strength) == ["tokens=5", "tokens=50", "alpha=0.5", "alpha=2.0"]
    assert (found["images"], found["controls"], found["split"]) == (IMAGES, ["token-limit"], "test")
    metrics = by_strength["tokens=50"]["metrics"]
    # F1: precision 1/2, recall 1.
    assert metrics == pytest.approx({"chair_i": 0.5, "recall": 1, "object_f1": 2 / 3, "things": 4, "words": 10})
    assert by_strength["tokens=5"]["distances"] == {}
    better, worse = (by_strength[f"alpha={alpha}"] for alpha in (0.5, 2.0))
    # The controls mixed half and half: recall 3/4, 40 wrong of 20 + 80 mentions.
    for one, chair in ((better, 20 / 80), (worse, 60 / 120)):
        assert one["metrics"]["recall"] == pytest.approx(3 / 4)
        away = one["distances"]["recall"]
        assert away["difference"] == pytest.approx(chair - 40 / 100)
        assert [part["share"] for part in away["controls"]] == pytest.approx([0.5, 0.5])
        assert away["interval"][0] <= away["difference"] <= away["interval"][1]
    # Two things a caption: 1/3 of the long one, so 80/3 wrong of 80 mentions; three: 2/3 of it, 160/3 of 120.
    assert better["distances"]["things"]["difference"] == pytest.approx(20 / 80 - 1 / 3)
    assert worse["distances"]["things"]["difference"] == pytest.approx(60 / 120 - 4 / 9)
    assert better["distances"]["recall"]["p"] < 0.01
    assert found["best"] == {"vcd": {"alpha": 0.5}}


def test_holm_is_over_what_is_tested(runs):
    every = {one.strength: one for one in frontier(runs).outcomes}
    only = {one.strength: one for one in frontier(runs, chosen={"vcd": {"alpha": 2.0}}).outcomes}
    assert [one.tested for one in only.values()] == [False, False, False, True]
    assert only["alpha=2.0"].p_holm["recall"] == only["alpha=2.0"].distances["recall"].p
    p = sorted(every[name].distances["recall"].p for name in ("alpha=0.5", "alpha=2.0"))
    expected = [min(1.0, 2 * p[0]), max(p[1], min(1.0, 2 * p[0]))]
    assert sorted(one.p_holm["recall"] for one in every.values() if one.tested) == pytest.approx(expected)


def test_a_recall_that_no_control_reaches_is_best(runs, tmp_path):
    """Every caption names both things that are there; the second setting names less beside them."""
    both = THINGS[:2]
    beyond = [
        write_captions(tmp_path / f"{alpha}", "iava", {"alpha": alpha}, lambda n, said=said: said)
        for alpha, said in ((1.0, [*both, "tree"]), (3.0, both))
    ]
    short = [runs[0], *runs[2:], *beyond]
    found = results(frontier(short))
    assert [one["distances"]["recall"] for one in found["settings"][1:]] == [None] * 4
    # VCD: CHAIRi 1/4 and 1/2. IAVA: 1/3 and 0.
    assert found["best"] == {"vcd": {"alpha": 0.5}, "iava": {"alpha": 3.0}}


def test_what_makes_the_frontier_can_be_chosen(runs, tmp_path):
    verified = write_captions(tmp_path / "e", "verify", {"threshold": 0.0}, lambda n: THINGS[: 1 + n % 2])
    with_it, without = frontier([*runs, verified]), frontier([*runs, verified], controls=["token-limit"])
    differences = [
        {one.strength: one.distances["recall"].difference for one in found.outcomes if one.distances}
        for found in (with_it, without)
    ]
    # Verify has recall 3/4 without a wrong thing.
    assert differences[0] == pytest.approx({"alpha=0.5": 20 / 80, "alpha=2.0": 60 / 120})
    assert differences[1] == pytest.approx({"alpha=0.5": -0.15, "alpha=2.0": 0.1, "": -0.4})


def test_trivial_controls_have_no_contrast_branch():
    trivial = {name for name in names() if is_trivial(name)}
    assert trivial == {
        *("greedy", "sample", "apc", "bias", "prompt-bias"),
        *("end-bias", "token-limit", "brief", "verify", "best-of"),
    }


def test_runs_that_cannot_be_compared(runs, tmp_path):
    other = write_captions(tmp_path / "other", "greedy", {}, lambda _: [], split="tune")
    with pytest.raises(IavaError, match=r"other and .* differ in split: a frontier needs the same captions of all"):
        frontier([*runs, other])
    twice = write_captions(tmp_path / "twice", "vcd", {"alpha": 0.5}, lambda _: [], images=2)
    (twice / "manifest.json").write_text((twice / "manifest.json").read_text().replace('"vcd"', '"greedy": {}, "vcd"'))
    with pytest.raises(IavaError, match="twice holds vcd with settings that another run has"):
        frontier([*runs, twice])
    with pytest.raises(IavaError, match="the runs hold no greedy: they hold token-limit, vcd"):
        frontier(runs, controls=["greedy"])
    with pytest.raises(IavaError, match="the runs hold no control: they hold vcd"):
        frontier(runs[2:])
    with pytest.raises(IavaError, match="metric is 'f2': use one of recall, object_f1"):
        frontier(runs, metric="f2")


def test_the_command_writes_page_tables_and_json(runs, tmp_path):
    tuned, page = tmp_path / "tuned.html", tmp_path / "page.html"
    assert run("frontier", *runs, "--out", tuned).exit_code == 0
    found = run("frontier", *runs, "--out", page, "--chosen", tuned.with_suffix(".json"))
    assert found.exit_code == 0, found.output
    assert read_chosen(tuned.with_suffix(".json")) == {"vcd": {"alpha": 0.5}}
    words = "VCD alpha=0.5: CHAIRi minus the frontier of the controls at the same recall is -15.0, 95 % interval [-"
    assert words in " ".join(found.stdout.split())
    by_f1 = run("frontier", *runs, "--out", tmp_path / "f1.html", "--metric", "object_f1").stdout
    # Both controls have an F1 of 2/3, as the stronger setting has; the weaker one has 3/4.
    assert "VCD: of 2 settings, 0 lie below" in by_f1
    assert "No control reaches the F1 of things of 1." in " ".join(by_f1.split())
    html, table = page.read_text(), page.with_suffix(".md").read_text()
    assert html.count("<svg") == 4
    assert "token limit tokens=50" in table
    assert r"\toprule" in page.with_suffix(".tex").read_text()
    assert "out is x.md: it must end in .html" in refused("frontier", *runs, "--out", "x.md")
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[]")
    assert "names no best settings" in refused("frontier", *runs, "--out", page, "--chosen", wrong)


@pytest.mark.slow
def test_a_sweep_measures_every_strength_once(tmp_path):
    plan = Plan("fake", {"greedy": {}, "vcd": {"beta": 0.2}}, "tune", 2, benchmark="chair")
    lvlm = FakeLVLM()
    trials = sweep_strengths(lvlm, plan, {"vcd": {"alpha": [0.5, 1.5]}}, tmp_path)
    assert [(trial.settings.get("alpha"), trial.settings.get("beta")) for trial in trials] == [
        (None, None),
        (0.5, 0.2),
        (1.5, 0.2),
    ]
    assert len(lvlm.asked) == 2 * 3
    sweep_strengths(lvlm, plan, {"vcd": {"alpha": [0.5, 1.5]}}, tmp_path)
    assert len(lvlm.asked) == 2 * 3
    # A sweep's folder stands for its runs.
    for folders in ([tmp_path], [trial.folder for trial in trials]):
        assert [one.strength for one in frontier(folders).outcomes] == ["", "alpha=0.5", "alpha=1.5"]


@pytest.mark.slow
def test_captions_of_a_folder_like_cocos(tmp_path):
    methods = {"greedy": {}, "verify": {}, "best-of": {}, "restore": {}, "vcd": {}}
    plan = Plan("fake", methods, benchmark="chair", data=written(tmp_path / "data"))
    grids = {"verify": {"threshold": [0.0, 1.0]}, "best-of": {"n": [2]}, "vcd": {"alpha": [1.0, 2.0]}}
    sweep_strengths(FakeLVLM(), plan, grids, tmp_path / "runs")
    assert run("frontier", tmp_path / "runs", "--out", tmp_path / "page.html").exit_code == 0
    found = json.loads((tmp_path / "page.json").read_text())
    # The third picture is broken.
    assert (found["images"], found["split"], found["controls"]) == (2, "val", ["best-of", "greedy", "verify"])
    assert len(found["settings"]) == 7
    [greedy] = [one for one in frontier([tmp_path / "runs"]).outcomes if one.setting.method == "greedy"]
    said = [record["text"].lower() for record in greedy.setting.records.values()]
    named = [word for text in said for word in ("dog", "cow", "cup", "car") if word in text]
    assert greedy.metrics["things"] == len(named) / 2
    assert greedy.metrics["recall"] == named.count("dog") / 2
    assert greedy.metrics["chair_i"] == pytest.approx(1 - named.count("dog") / len(named))


@pytest.mark.parametrize("name", STRENGTHS)
def test_every_strength_is_a_setting_of_its_method(name):
    made = candidates(name, {})
    assert len({json.dumps(one) for one in made}) == len(made)
    assert all(one.keys() == resolve(name)().settings().keys() for one in made)


def test_sweeps_that_cannot_be_run(tmp_path):
    for words, arguments in {
        "pope asks for no captions: use chair": ("pope", "--methods", "vcd"),
        "--grid vcd.alpha was given, but 'vcd' is not among the methods: icd": (
            *("chair", "--methods", "icd"),
            *("--grid", "vcd.alpha=1"),
        ),
        "the grid of vcd varies alpha, beta: a sweep varies one setting": (
            *("chair", "--methods", "vcd"),
            *("--grid", "vcd.alpha=1", "--grid", "vcd.beta=0.1"),
        ),
        "the strength of oracle is unknown: give --grid oracle.SETTING": ("chair", "--methods", "oracle"),
        "alpha is -1.0: it must be a number, at least 0": ("chair", "--methods", "vcd", "--grid", "vcd.alpha=-1"),
    }.items():
        assert words in refused("sweep", *arguments, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()

"""A run keeps one record a question and method, survives being killed, and refuses to be mixed with another."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from iava.benchmarks import parsers
from iava.benchmarks.sources.pocket import pocket
from iava.errors import IavaError
from iava.evaluation.bias import fit_bias
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records
from iava.evaluation.runner import ask_all, evaluate
from iava.lvlm.model import LVLM
from tests import tiny
from tests.fakes import FakeLVLM
from tests.folders import written

METHODS = {"greedy": {}, "sample": {}, "bias": {}, "iava": {"alpha": 0.5}}
PLAN = Plan("fake", METHODS, split="tune-heldout", limit=4, tune_images=3)


def lines(folder, name="records.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def by_key(records):
    return {(r["id"], r["method"]): {k: v for k, v in r.items() if k != "seconds"} for r in records}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, evaluate(FakeLVLM(), PLAN, folder)


def test_every_question_is_recorded_for_every_method(undisturbed):
    folder, _ = undisturbed
    questions = {q.id: q for q in pocket("pope", "tune-heldout", 4).questions}
    records = lines(folder)
    assert {(r["id"], r["method"]) for r in records} == {(id, method) for id in questions for method in METHODS}
    assert len(records) == len(questions) * len(METHODS)
    for record in records:
        question = questions[record["id"]]
        assert (record["image"], record["question"]) == (question.image, question.question)
        assert (record["category"], record["truth"], record["split"]) == (
            question.category,
            question.truth,
            "tune-heldout",
        )
        assert record["parsed"] == parsers.word(record["text"])
        if record["parsed"]:
            assert record["parsed"] == ("yes" if record["yes"] > record["no"] else "no")


def test_a_question_that_stands_in_three_categories_is_asked_once(tmp_path):
    lvlm, task = FakeLVLM(), pocket("pope", "tune-heldout", 4)
    ask_all(lvlm, task, [lvlm.method("greedy")], Records(tmp_path / "r"), PLAN)
    assert len(lvlm.asked) == len({(q.image, q.question) for q in task.questions}) < len(task.questions)


def test_killed_and_called_again_ends_with_the_same_records(undisturbed, tmp_path):
    folder, results = undisturbed
    for attempt in range(40):
        lvlm = FakeLVLM(stop_after=30)
        try:
            again = evaluate(lvlm, PLAN, tmp_path)
            break
        except KeyboardInterrupt:
            # As if the kill had come in the middle of a line.
            with open(tmp_path / "tune-records.jsonl", "a") as file:
                file.write('{"id": "tune-000')
            if attempt > 3:
                with open(tmp_path / "records.jsonl", "a") as file:
                    file.write('{"id": "té')
    assert attempt > 5
    assert by_key(lines(tmp_path)) == by_key(lines(folder))
    assert by_key(lines(tmp_path, "tune-records.jsonl")) == by_key(lines(folder, "tune-records.jsonl"))
    assert again["rows"] == results["rows"]


def test_records_cut_anywhere_are_completed(undisturbed, tmp_path):
    folder, _ = undisturbed
    whole = (folder / "records.jsonl").read_bytes()
    for name in ("manifest.json", "tune-records.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for cut in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "records.jsonl").write_bytes(whole[:cut])
        evaluate(FakeLVLM(), PLAN, tmp_path)
        records = lines(tmp_path)
        assert len(records) == len(lines(folder))
        assert by_key(records) == by_key(lines(folder))


def test_a_finished_run_is_not_asked_again(undisturbed):
    folder, results = undisturbed
    lvlm = FakeLVLM()
    assert evaluate(lvlm, PLAN, folder)["rows"] == results["rows"]
    assert lvlm.asked == []
    assert json.loads((folder / "results.json").read_text())["rows"] == results["rows"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": 5}, "limit is 4 there, 5 here"),
        ({"seed": 1}, "seed is 42 there, 1 here"),
        ({"split": "tune"}, "split is tune-heldout there, tune here"),
        ({"shard": (1, 2)}, "shard is None there, 1/2 here"),
        ({"benchmark": "mme"}, "benchmark is pope there, mme here"),
        ({"model": "other"}, "model is fake there, other here"),
        ({"methods": {"greedy": {}}}, "methods is greedy,sample,bias,iava there, greedy here"),
        ({"methods": {**METHODS, "iava": {"alpha": 2.0}}}, "methods.iava.alpha is 0.5 there, 2.0 here"),
    ],
)
def test_a_folder_made_with_other_settings_is_refused(undisturbed, change, words):
    folder, _ = undisturbed
    before = (folder / "records.jsonl").read_bytes()
    with pytest.raises(ValueError, match=words):
        evaluate(FakeLVLM(), replace(PLAN, **change), folder)
    assert (folder / "records.jsonl").read_bytes() == before


def test_a_run_of_other_weights_is_refused(undisturbed):
    folder, _ = undisturbed
    lvlm = FakeLVLM()
    torch.nn.init.ones_(lvlm.model.weight)
    with pytest.raises(ValueError, match="weights is"):
        evaluate(lvlm, PLAN, folder)


def test_a_run_of_another_generation_config_is_refused(undisturbed):
    folder, _ = undisturbed
    lvlm = FakeLVLM()
    lvlm.generation_notes = {"repetition_penalty": 1.3}
    with pytest.raises(ValueError, match="checkpoint_generation"):
        evaluate(lvlm, PLAN, folder)


def test_folders_that_are_no_runs_are_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(ValueError, match="records without a manifest"):
        evaluate(FakeLVLM(), PLAN, tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="is no manifest of a run"):
        evaluate(FakeLVLM(), PLAN, tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="cannot write"):
        evaluate(FakeLVLM(), PLAN, file / "run")


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"id": 1}\nnonsense\n{"id": 2}\n')
    with pytest.raises(ValueError, match=r"records\.jsonl, line 2, is no JSON"):
        Records(path)


def test_an_image_that_cannot_be_read_is_an_error_of_its_questions_only(tmp_path):
    task = pocket("pope", "tune-heldout", 3)

    def open_image(image):
        if image.endswith("1"):
            raise OSError("image file is truncated")
        return task.open_image(image)

    lvlm = FakeLVLM()
    records = Records(tmp_path / "r")
    ask_all(lvlm, replace(task, open_image=open_image), [lvlm.method("greedy")], records, PLAN)
    broken = [r for r in records.rows if "error" in r]
    assert {r["id"] for r in broken} == {q.id for q in task.questions if q.image.endswith("1")}
    assert {r["error"] for r in broken} == {"image file is truncated"}
    assert all(r["parsed"] is None and r["yes"] is None for r in broken)
    assert len(records.rows) == len(task.questions)


@pytest.mark.parametrize(
    "failure", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CPU: can't allocate memory")]
)
def test_a_question_that_memory_does_not_hold_is_an_error_and_the_run_goes_on(tmp_path, failure):
    task = pocket("pope", "tune-heldout", 3)
    lvlm = FakeLVLM()
    ask, full = lvlm.ask_many, task.open_image(task.images[1]).tobytes()

    def ask_many(image, questions, **more):
        if image.tobytes() == full:
            raise failure
        return ask(image, questions, **more)

    lvlm.ask_many = ask_many
    records = Records(tmp_path / "r")
    ask_all(lvlm, task, [lvlm.method("greedy")], records, PLAN)
    assert {r["id"] for r in records.rows if "error" in r} == {
        q.id for q in task.questions if q.image == task.images[1]
    }
    assert {r["error"] for r in records.rows if "error" in r} == {"out of memory, even for one question alone"}
    assert len(records.rows) == len(task.questions)


def test_a_question_that_cannot_be_asked_is_an_error_of_its_own(tmp_path):
    task = pocket("pope", "tune-heldout", 2)
    bad, ugly = task.questions[1], task.questions[3]
    odd = {bad.id: "What is <image>?", ugly.id: "Is there a \ud800?"}
    questions = [replace(q, question=odd.get(q.id, q.question)) for q in task.questions]
    lvlm = LVLM(tiny.model(), tiny.processor())
    records = Records(tmp_path / "r")
    ask_all(lvlm, replace(task, questions=questions), [lvlm.method("greedy")], records, replace(PLAN, max_new_tokens=1))
    assert {r["id"] for r in records.rows if "error" in r} == set(odd)
    assert len(records.rows) == len(questions)
    # What was written can be read, and nothing is asked again.
    assert Records(tmp_path / "r").rows == records.rows


def test_other_errors_of_torch_are_not_hidden(tmp_path):
    lvlm = FakeLVLM()

    def ask_many(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    lvlm.ask_many = ask_many
    with pytest.raises(RuntimeError, match="mat1"):
        ask_all(lvlm, pocket("pope", "tune-heldout", 1), [lvlm.method("greedy")], Records(tmp_path / "r"), PLAN)


def test_the_bias_gives_greedy_the_wanted_rate_of_yes():
    margins = np.random.default_rng(0).normal(size=200).round(2)
    for wanted in (0.0, 0.13, 0.5, 0.87, 1.0):
        bias = fit_bias(margins.tolist(), wanted)
        reachable = [np.mean(margins > threshold) for threshold in [*np.unique(margins), -9]]
        assert abs(np.mean(margins + bias > 0) - wanted) == pytest.approx(min(abs(r - wanted) for r in reachable))
    assert fit_bias(margins.tolist(), np.mean(margins > 0)) == 0.0


def test_the_fitted_bias_is_written_down_and_copies_iavas_rate_on_tune(undisturbed):
    folder, results = undisturbed
    manifest = json.loads((folder / "manifest.json").read_text())
    fitting = {"fitted_on": "tune", "images": 3, "yes_ratio_of": "iava"}
    assert manifest["settings"]["methods"]["bias"] == fitting
    row = next(row for row in results["rows"] if row["method"] == "bias")
    tune = lines(folder, "tune-records.jsonl")
    iava = np.mean([r["parsed"] == "yes" for r in tune if r["method"] == "iava"])
    margins = np.array([r["yes"] - r["no"] for r in tune if r["method"] == "greedy"])
    assert row["settings"] == {"bias": row["settings"]["bias"], **fitting}
    # One question more or less stands three times where it is a positive.
    assert np.mean(margins + row["settings"]["bias"] > 0) == pytest.approx(iava, abs=3 / len(margins))


def test_the_manifest_says_what_made_the_records(undisturbed):
    folder, _ = undisturbed
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["methods"]["iava"]["alpha"] == 0.5
    assert manifest["settings"]["questions"] == PLAN.questions.digest
    assert (manifest["settings"]["seed"], manifest["settings"]["max_new_tokens"]) == (42, 16)
    assert (manifest["data"], manifest["revision"]) == ("pocket", None)
    assert {"git", "started"} <= set(manifest)
    assert set(manifest["versions"]) == {"iava", "torch", "transformers", "python"}
    assert manifest["machine"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": {}}, "no method is named"),
        ({"methods": {"bias": {}}}, "bias is fitted to the yes-rate of another method"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"tune_images": 0}, "tune_images is 0"),
        ({"parser": "vague"}, "unknown parser 'vague' for pope: use one of word, pope, opera, vcd, exact"),
        ({"benchmark": "vqa"}, "unknown benchmark 'vqa': use one of pope, pope-aokvqa, pope-gqa, repope, mme"),
        ({"benchmark": "chair"}, "bias moves yes against no, and chair asks for neither"),
        (
            {"benchmark": "textvqa", "methods": {"greedy": {}}, "parser": "word"},
            "textvqa is not answered with yes or no",
        ),
    ],
)
def test_plans_that_cannot_be_run(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PLAN, **change)


@pytest.mark.parametrize(("benchmark", "length"), [("mme", 16), ("chair", 64)])
def test_the_other_pocket_benchmarks_run_and_resume(tmp_path, benchmark, length):
    methods = {"greedy": {}, "iava": {}} if benchmark == "chair" else METHODS
    plan = Plan("fake", methods, split="tune-heldout", limit=5, tune_images=3, benchmark=benchmark)
    with pytest.raises(KeyboardInterrupt):
        evaluate(FakeLVLM(stop_after=8), plan, tmp_path)
    results = evaluate(FakeLVLM(), plan, tmp_path)
    records = lines(tmp_path)
    assert len(by_key(records)) == len(records) == len(plan.task.questions) * len(methods)
    assert {(row["benchmark"], row["split"]) for row in results["rows"]} == {(benchmark, "tune-heldout")}
    assert results["manifest"]["settings"]["max_new_tokens"] == length
    with pytest.raises(ValueError, match="limit is 5 there, 6 here"):
        evaluate(FakeLVLM(), replace(plan, limit=6), tmp_path)
    if benchmark == "chair":
        assert all(set(r) & {"yes", "no"} == set() for r in records)
        assert all(word in r["text"] for r in records for word in r["parsed"])
    else:
        assert results["manifest"]["settings"]["parser"] == "official"


@pytest.mark.slow
def test_a_real_model_runs_through(tmp_path):
    lvlm = LVLM(tiny.model(), tiny.processor())
    methods = {"greedy": {}, "apc": {}, "bias": {}, "iava": {}, "oracle": {}}
    plan = Plan("tiny", methods, limit=2, max_new_tokens=2, tune_images=1)
    results = evaluate(lvlm, plan, tmp_path)
    assert len(results["rows"]) == 4 * 5
    greedy, apc = ([r["yes"] for r in lines(tmp_path) if r["method"] == name] for name in ("greedy", "apc"))
    assert greedy == pytest.approx(apc)


def test_the_oracle_is_told_the_regions(tmp_path):
    told = []

    class Told(FakeLVLM):
        def ask_many(self, image, questions, *, method, max_new_tokens, seed):
            told.append((questions, method._regions))
            return super().ask_many(image, questions, method=method, max_new_tokens=max_new_tokens, seed=seed)

    task = pocket("pope", "tune-heldout", 2)
    lvlm = Told()
    ask_all(lvlm, task, [lvlm.method("oracle")], Records(tmp_path / "r"), PLAN)
    assert len(told) == 2
    for (questions, regions), number in zip(told, range(2), strict=True):
        expected = {q.question: q.region for q in task.questions if q.image == f"tune-heldout-{number:05d}"}
        assert regions == expected
        assert list(regions) == questions
        assert all(regions.values())


def test_the_oracle_needs_regions(tmp_path):
    plan = Plan("fake", {"oracle": {}}, benchmark="pope-gqa", data=written(tmp_path / "data"))
    with pytest.raises(IavaError, match="oracle must know which region answers each question, and pope-gqa does not"):
        evaluate(FakeLVLM(), plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()

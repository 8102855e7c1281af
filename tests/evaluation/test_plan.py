"""Which questions a plan asks, and how it puts them."""

import json
from dataclasses import replace

import pytest

from iava.benchmarks.benchmark import PROMPT_STYLES
from iava.benchmarks.registry import benchmark
from iava.benchmarks.sources.ids import plain_id
from iava.benchmarks.task import Question
from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.runner import evaluate
from tests.fakes import FakeLVLM
from tests.folders import written

PLAN = Plan("fake", {"greedy": {}}, split="tune-heldout")
ASKED = "Is there a dog in the image?"
ENDED = f"{ASKED} Please answer yes or no."
SHORT = "\nAnswer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("name", "question", "prompts"),
    [
        ("pope", ASKED, {"llava": ASKED + SHORT, "vcd": f"{ASKED} Please answer this question with one word."}),
        # LLaVA's and lmms-eval's files put their ending in the place of MME's own.
        ("mme", ENDED, {"llava": ASKED + SHORT, "lmms-eval": ASKED + SHORT}),
        ("mme", ENDED, {"plain": ENDED, "pai": ENDED}),
    ],
)
def test_styles_of_closed_questions(name, question, prompts):
    asked = Question("1", ("x",), "random", question, "yes")
    found = {style: benchmark(name).prompt(asked, style) for style in PROMPT_STYLES}
    assert found | prompts == found
    assert found["plain"] == question


def test_captions_have_pais_words_in_its_style_only_and_textvqa_has_llavas_by_default():
    caption = Question("1", ("x",), "caption", "Describe this image.", ["dog"])
    found = {style: benchmark("chair").prompt(caption, style) for style in PROMPT_STYLES}
    assert found.pop("pai") == "Please help me describe the image in detail."
    assert set(found.values()) == {"Describe this image."}
    text = Question("1", ("x",), "textvqa", "what Brand is it?", ["x"] * 10)
    assert benchmark("textvqa").style == "llava"
    assert benchmark("textvqa").prompt(text, "llava") == "what Brand is it?" + SHORT
    assert benchmark("textvqa").prompt(text, "lmms-eval") == "What brand is it?" + SHORT


def test_ocr_tokens_stand_before_the_ending(tmp_path):
    data = written(tmp_path)
    rows = [{"image_id": name, "ocr_tokens": ["STOP", name]} for name in ("red", "green")]
    (data / "textvqa" / "TextVQA_Rosetta_OCR_v0.2_val.json").write_text(json.dumps({"data": rows}))
    plan = Plan("fake", {"greedy": {}}, benchmark="textvqa", data=data, options={"ocr": True})
    assert [q.question for q in plan.task.questions] == [
        f"What is written?\nReference OCR token: {tokens}{SHORT}" for tokens in ("STOP, red", "STOP, green", "")
    ]


def test_style_and_suffix_are_asked_recorded_and_kept_apart(tmp_path):
    plan = replace(PLAN, limit=1, prompt_style="vcd", suffix="Think.")
    results = evaluate(FakeLVLM(), plan, tmp_path)
    ending = " Please answer this question with one word. Think."
    asked = [json.loads(line)["question"] for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert all(text.endswith(f"?{ending}") for text in asked)
    settings = results["manifest"]["settings"]
    assert (settings["prompt_style"], settings["suffix"]) == ("vcd", "Think.")
    assert (results["manifest"]["prompt_style"], ending in results["manifest"]["prompt"]) == ("vcd", True)
    with pytest.raises(IavaError, match="prompt_style is vcd there, None here"):
        evaluate(FakeLVLM(), replace(plan, prompt_style=None), tmp_path)
    # White space at the beginning of a suffix stays as it is.
    assert replace(plan, suffix="\nThink.").task.questions[0].question.endswith("word.\nThink.")


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    plan = replace(PLAN, limit=1)
    evaluate(FakeLVLM(), plan, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for key in ("prompt_style", "suffix", "category", "sample", "ids", "options"):
        assert manifest["settings"].pop(key) is None
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    lvlm = FakeLVLM()
    evaluate(lvlm, plan, tmp_path)
    assert lvlm.asked == []
    with pytest.raises(IavaError, match=r"suffix is None there, x here"):
        evaluate(lvlm, replace(plan, suffix="x"), tmp_path)


def test_a_category_is_a_part_of_the_benchmark(tmp_path):
    plan = replace(PLAN, category="popular", limit=2)
    assert {q.category for q in plan.task.questions} == {"popular"}
    with pytest.raises(IavaError, match="unknown category 'easy' of pope: use one of overall, random, popular"):
        replace(PLAN, category="easy").task  # noqa: B018
    amber = Plan("fake", {"greedy": {}}, benchmark="amber", data=written(tmp_path), category="generative")
    assert {q.question for q in amber.task.questions} == {"Describe this image."}
    assert {q.category for q in replace(amber, category="relation").task.questions} == {"relation"}


def test_a_sample_is_the_same_for_the_same_seed_and_can_be_listed(tmp_path):
    plan = replace(PLAN, sample=5, seed=7)
    assert len(plan.task.groups) == 5
    assert plan.task.groups == replace(PLAN, sample=5, seed=7).task.groups != replace(plan, seed=8).task.groups
    evaluate(FakeLVLM(), plan, tmp_path / "drawn")
    ids = tmp_path / "drawn" / "ids.txt"
    assert ids.read_text().split() == plan.task.groups
    listed = replace(PLAN, ids=ids)
    assert listed.task.questions == plan.task.questions
    few = tmp_path / "few.json"
    few.write_text(json.dumps(plan.task.groups[:2]))
    assert replace(PLAN, ids=few).task.groups == plan.task.groups[:2]
    few.write_text("nowhere-00001\n")
    with pytest.raises(IavaError, match=r"few\.json: 'nowhere-00001' is no image or question of pope"):
        replace(PLAN, ids=few).task  # noqa: B018
    with pytest.raises(IavaError, match="sample is 9999: there are"):
        replace(PLAN, sample=9999).task  # noqa: B018
    with pytest.raises(IavaError, match="sample and ids are given"):
        replace(PLAN, sample=1, ids=few)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COCO_val2014_000000310196.jpg", "310196"),
        ("val2014/COCO_val2014_000000310196.jpg", "310196"),
        ("000000310196", "310196"),
        ("310196.png", "310196"),
        ("AMBER_1.jpg", "AMBER_1.jpg"),
        ("test-00007", "test-00007"),
        ("0", "0"),
    ],
)
def test_coco_names_are_ids(name, expected):
    assert plain_id(name) == expected


@pytest.mark.slow
def test_captions_have_a_general_instruction_of_their_own_unless_one_is_chosen():
    methods = {"greedy": {}, "iava": {"alpha": 0.5}, "iava+": {"general": "What is in this image?"}, "icd": {}}
    captions = Plan("fake", methods, benchmark="chair")
    assert captions.methods["iava"] == {"general": "Is there an object in the image?", "alpha": 0.5}
    assert captions.methods["iava+"] == {"general": "What is in this image?"}
    assert (captions.methods["greedy"], captions.methods["icd"]) == ({}, {})
    assert Plan("fake", methods, benchmark="pope").methods == methods
    # AMBER's yes-no questions have the usual one.
    assert Plan("fake", methods, benchmark="amber", category="generative").methods == captions.methods
    assert Plan("fake", methods, benchmark="amber").methods == methods
    assert Plan("fake", methods, benchmark="amber", category="discriminative").methods == methods
    # The usual general instruction is the question itself.
    assert captions.task.questions[0].question == "Describe this image."

"""Which draft is taken and what is dropped, by hand; and the calls that a record is made of, one by one."""

import json

import pytest

from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.runner import evaluate
from iava.lvlm.loading import load
from iava.methods.verify import BestOf, Verify
from iava.pocket.scenes import load_scene
from tests import tiny
from tests.fakes import FakeLVLM
from tests.folders import written

MARGINS = {"dog": 3.0, "cow": -0.5, "tree": 0.0, "cup": 0.5}


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (-1.0, ["dog", "cow", "dog", "tree", "cup"]),
        (0.0, ["dog", "dog", "cup"]),
        (0.5, ["dog", "dog"]),
        (5.0, []),
    ],
)
def test_verify_keeps_what_has_a_margin_above_the_threshold(threshold, kept):
    assert Verify(threshold).choice([["dog", "cow", "dog", "tree", "cup"]], MARGINS) == (0, kept)


@pytest.mark.parametrize(
    ("drafts", "best"),
    [
        # Things count once, and a margin of 0 denies.
        ([["cow", "dog"], ["dog", "cup"], ["dog"]], 1),
        ([["cow", "tree"], ["cow", "cow", "dog"]], 1),
        ([["dog", "cow"], ["cup", "tree"]], 0),
        ([["cow"], []], 1),
    ],
)
def test_the_best_draft_has_the_fewest_denied_things_and_of_equal_ones_is_the_first(drafts, best):
    assert BestOf(len(drafts)).choice(drafts, MARGINS) == (best, drafts[best])


@pytest.mark.slow
def test_records_equal_the_calls_one_by_one(tmp_path):
    lvlm = load("pocket")
    plan = Plan("pocket", {"verify": {"threshold": 0.5}, "best-of": {"n": 3}}, "tune-blur", 2, benchmark="chair")
    evaluate(lvlm, plan, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(records) == 4
    for record in records:
        picture = load_scene("tune-blur", int(record["image"][-5:])).render()
        margins = {}
        for thing in record["margins"]:
            article = "an" if thing[0] in "aeiou" else "a"
            answer = lvlm.ask(picture, f"Is there {article} {thing} in the image?", method="greedy")
            yes, no = (
                max(float(answer.logits[lvlm.processor.tokenizer.encode(word)[-1]]) for word in words)
                for words in ((" Yes", "Yes"), (" No", "No"))
            )
            margins[thing] = yes - no
        assert record["margins"] == pytest.approx(margins, abs=0.05)
        if record["method"] == "verify":
            greedy = lvlm.ask(picture, "Describe this image.", method="greedy", max_new_tokens=64)
            assert record["text"] == greedy.text
            # Every thing that is dropped stands in the caption, and was given a margin at most the threshold.
            assert record["parsed"] == [thing for thing, margin in record["margins"].items() if margin > 0.5]
        else:
            assert record["parsed"]
            assert all(thing.split()[0][:3] in record["text"] for thing in record["parsed"])


def test_captions_of_coco_images_are_checked(tmp_path):
    lvlm = FakeLVLM()
    plan = Plan("fake", {"verify": {}, "best-of": {"n": 2}}, benchmark="chair", data=written(tmp_path / "data"))
    evaluate(lvlm, plan, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    # One of the three images is broken.
    assert sum("error" in record for record in records) == 2
    for record in (record for record in records if "error" not in record):
        assert record["question"] == "Please describe this image in detail."
        # "car" and "dog" are COCO's classes; "tree" is none.
        named = [name for name in ("dog", "cow", "cup", "car") if f" {name}" in record["text"]]
        assert sorted(record["margins"]) == sorted(named)
        for thing in named:
            assert ("greedy", f"Is there a {thing} in the image?") in lvlm.asked
        if record["method"] == "verify":
            assert sorted(record["parsed"]) == sorted(name for name in named if record["margins"][name] > 0)
        else:
            assert sorted(record["parsed"]) == sorted(named)


def test_only_a_benchmark_of_captions_can_run_them():
    with pytest.raises(IavaError, match="verify asks about the things that a caption names, and pope asks for no"):
        Plan("pocket", {"verify": {}}, benchmark="pope")
    model, processor = tiny.model(), tiny.processor()
    inputs = tiny.inputs(processor, tiny.image(1), "Is there a dog ?")
    with pytest.raises(IavaError, match=r"best-of asks about the things .* use iava eval chair"):
        model.generate(**inputs, max_new_tokens=2, custom_generate=BestOf())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Verify(float("inf")), "threshold is inf: it must be a number, finite"),
        (lambda: BestOf(0), "n is 0: it must be a whole number, at least 1"),
        (lambda: BestOf(2, temperature=0), "temperature is 0: it must be a number, above 0"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(IavaError, match=words):
        make()

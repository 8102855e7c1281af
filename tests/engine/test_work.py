"""What a call costs, in counted work: columns that the decoder runs, images looked at, rows of attention."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import iava
from iava.cost.contenders import counted_work
from iava.engine import hf
from iava.engine.caches.cache import shared_prefix
from iava.metrics.memory import peak
from tests import families, tiny
from tests.engine.test_edit import read
from tests.lvlm.test_session import counting

PICTURE = tiny.image(2)
# With the template behind them 7, 11 and 3 tokens, behind 2 + 9 of the beginning.
QUESTIONS = ["Is there a dog ?", "where is the blue boat on the street ?", "What ?"]
BEGINNING, BEFORE, GENERAL = 11, 2, 6


@pytest.fixture
def lvlm():
    return iava.load(tiny.model(1), tiny.processor())


def decoder_columns(lvlm, questions, tokens=1, **settings):
    """The columns of each run of the decoder, and how many image tokens each question's second branch keeps."""
    columns, handle = counting(lvlm.model)
    answers = lvlm.ask_many(PICTURE, questions, max_new_tokens=tokens, explain=True, **settings)
    handle.remove()
    kept = [0 if a.explanation.selected is None else int(a.explanation.selected.sum()) for a in answers]
    return columns, kept


def test_the_columns_of_one_question(lvlm):
    whole = BEGINNING + 7
    assert decoder_columns(lvlm, QUESTIONS[:1], method="greedy")[0] == [whole]
    assert decoder_columns(lvlm, QUESTIONS[:1], negative="zeros")[0] == [whole + GENERAL, whole]
    assert decoder_columns(lvlm, QUESTIONS[:1], negative="hide")[0] == [whole + GENERAL, 7]
    columns, kept = decoder_columns(lvlm, QUESTIONS[:1], negative="drop", top_i=4, lam=-0.5)
    assert 0 < kept[0] < 9
    assert columns == [whole + GENERAL, kept[0] + 7]


def test_two_contrast_branches_stand_side_by_side(lvlm):
    whole, six = BEGINNING + 7, [*QUESTIONS, *QUESTIONS[::-1]]
    assert decoder_columns(lvlm, QUESTIONS[:1], method="iava+", negative="hide")[0] == [whole + GENERAL, 7 + 7]
    columns, kept = decoder_columns(lvlm, QUESTIONS[:1], method="iava+", negative="drop", top_i=4, lam=-0.5)
    assert 0 < kept[0] < 9
    assert columns == [whole + GENERAL, kept[0] + 7 + 7]
    columns, _ = decoder_columns(lvlm, six, method="iava+", negative="hide")
    assert columns == [BEGINNING, 6 * 11, GENERAL, 6 * 22]


def test_the_columns_of_six_questions_about_one_image(lvlm):
    six = [*QUESTIONS, *QUESTIONS[::-1]]
    # The shorter ones are padded to the longest: 11.
    assert decoder_columns(lvlm, six, method="greedy")[0] == [BEGINNING, 6 * 11]
    assert decoder_columns(lvlm, six, negative="hide")[0] == [BEGINNING, 6 * 11, GENERAL, 6 * 11]
    # Three questions at a time, and their contrast branch in runs no larger than those of the main branch.
    half = [3 * 11, 22, 22, 22]
    assert decoder_columns(lvlm, six, negative="zeros")[0] == [BEGINNING, half[0], GENERAL, *half[1:], *half]
    columns, kept = decoder_columns(lvlm, six, negative="drop", top_i=4, lam=-0.5)
    # The prompts are padded on the left: what stands before the image is in the same columns for the longest ones only.
    rest = [k + tail + (0 if tail == 11 else BEFORE) for k, tail in zip(kept, [7, 11, 3, 3, 11, 7], strict=True)]
    assert columns == [BEGINNING, 6 * 11, GENERAL, 6 * max(rest)]


def test_a_new_token_is_two_columns(lvlm):
    lvlm.model.generation_config.eos_token_id = None
    for negative in ("zeros", "drop", "hide"):
        assert decoder_columns(lvlm, QUESTIONS[:1], tokens=4, negative=negative)[0][2:] == [2, 2, 2]
    assert decoder_columns(lvlm, QUESTIONS[:1], tokens=4, method="greedy")[0][1:] == [1, 1, 1]


@pytest.mark.parametrize("method", ["greedy", "iava"])
def test_a_picture_is_processed_and_seen_once_whatever_is_asked(lvlm, method, monkeypatch):
    processed, seen = [], []
    kind = type(lvlm.processor.image_processor)
    preprocess, features = kind.preprocess, lvlm.model.model.get_image_features

    def count_processed(self, images, *args, **kwargs):
        processed.append(images)
        return preprocess(self, images, *args, **kwargs)

    def count_seen(pixel_values, **kwargs):
        seen.append(len(pixel_values))
        return features(pixel_values, **kwargs)

    monkeypatch.setattr(kind, "preprocess", count_processed)
    monkeypatch.setattr(lvlm.model.model, "get_image_features", count_seen)
    # The format of the chat template is learnt with a blank image, once for each processor.
    lvlm.ask_many(tiny.image(3), QUESTIONS, method=method, max_new_tokens=1)
    processed.clear()
    seen.clear()
    lvlm.ask_many(PICTURE, QUESTIONS, method=method, max_new_tokens=1)
    # Early releases of transformers 5 take pixels only, and so those of each question.
    once = hf.takes_image_features(lvlm.model)
    assert (len(processed), seen) == (1, [1] if once else [3])
    reading = lvlm.read(PICTURE)
    for question in QUESTIONS:
        reading.ask(question, method=method, max_new_tokens=1)
    assert (len(processed), seen) == (2, [1, 1] if once else [3, 1, 1, 1])


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_picture_processed_once_is_as_processed_for_each_question(name):
    lvlm = iava.load(*families.build(name))
    texts = [lvlm.prompt(question) for question in QUESTIONS]
    found = lvlm.read(PICTURE).inputs.of(texts, pixels=True)
    made = lvlm.processor(
        text=texts, images=[[PICTURE] for _ in texts], padding=True, padding_side="left", return_tensors="pt"
    )
    expected = {key: value for key, value in made.items() if key != "labels"}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # The Q-Former's text is padded on its own side.
        if not key.startswith("qformer"):
            torch.testing.assert_close(found[key], value, atol=0, rtol=0)


class Softmaxes(TorchDispatchMode):
    """Counts how often a softmax is computed: for attention weights, since sdpa has its own."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Those over a vector of logits or two are the answer's probabilities.
        self.count += func is torch.ops.aten._softmax.default and args[0].dim() > 2
        return func(*args, **(kwargs or {}))


def softmaxes(run):
    with Softmaxes() as found:
        run()
    return found.count


@pytest.mark.parametrize(("name", "reads"), [("greedy", 1), ("pai", 1), ("sid", 1), ("iava", 1), ("vcd", 2)])
def test_different_pictures_are_seen_once_in_a_batch(lvlm, name, reads):
    """The same text about two pictures: nothing can be shared, which shows before the vision tower runs."""
    one, other = (tiny.inputs(lvlm.processor, tiny.image(seed), QUESTIONS[0]) for seed in (1, 2))
    inputs = {key: torch.cat([one[key], other[key]]) for key in one}
    with counted_work(lvlm.model) as counts:
        lvlm.model.generate(**inputs, custom_generate=lvlm.method(name), max_new_tokens=1)
    assert counts["images_read"] == 2 * reads


@pytest.mark.parametrize("method", ["greedy", "apc", "bias"])
def test_no_attention_is_computed_where_none_is_asked_for(lvlm, method):
    asked = {"method": method, "max_new_tokens": 1}
    assert softmaxes(lambda: lvlm.ask(PICTURE, QUESTIONS[0], **asked)) == 0
    assert softmaxes(lambda: lvlm.ask_many(PICTURE, QUESTIONS, **asked)) == 0
    session = lvlm.read(PICTURE)
    assert softmaxes(lambda: session.ask_many(QUESTIONS, **asked)) == 0
    assert softmaxes(lambda: session.ask(QUESTIONS[0], **asked)) == 0


def test_attention_is_computed_once_for_each_layer_and_instruction(lvlm):
    # Three layers, for the questions and for the general instruction.
    assert softmaxes(lambda: lvlm.ask_many(PICTURE, QUESTIONS, max_new_tokens=1)) == 6


def test_instructblips_image_is_seen_once_for_both_instructions():
    model, processor = families.build("instructblip")
    lvlm, seen = iava.load(model, processor), []
    handle = model.vision_model.register_forward_pre_hook(lambda *_: seen.append(1))
    lvlm.ask(PICTURE, QUESTIONS[0], max_new_tokens=2)
    handle.remove()
    assert seen == [1]


def test_a_prefix_is_looked_at_and_not_kept_twice():
    model, proc = tiny.model(), tiny.processor()
    prompt = read(model, tiny.inputs(proc, PICTURE, *QUESTIONS))
    ends = prompt.image_end
    cache = shared_prefix(prompt, ends, 5)
    width = int(ends.max())
    most, _ = peak(lambda: shared_prefix(prompt, ends, 5), torch.device("cpu"))
    assert most < prompt.cache.layers[0].keys.nbytes
    with torch.no_grad():
        model.get_decoder()(inputs_embeds=torch.zeros(3, 2, 32), past_key_values=cache, use_cache=True)
    assert cache.get_seq_length() == width + 2
    assert [layer.keys.shape[2] for layer in cache.layers] == [2, 2, 2]


@pytest.mark.parametrize(
    ("method", "settings", "copies"),
    [
        ("iava", {"negative": "zeros"}, 1),
        ("iava+", {"negative": "zeros"}, 2),
        ("avisc", {}, 1),
        ("sid", {}, 1),
        ("vcd", {"noise_per": "question"}, 1),
        ("vcd", {}, 0),
        ("iava", {"negative": "hide"}, 0),
        ("iava", {"negative": "drop"}, 0),
    ],
)
def test_contrast_branches_with_images_of_their_own_hold_half_the_weights_at_most(lvlm, method, settings, copies):
    """How many questions a step has at most, and their answers, which are those of each question alone."""
    six, steps = [*QUESTIONS, *QUESTIONS[::-1]], []

    def note(_module, _args, kwargs):
        if kwargs["inputs_embeds"].shape[1] == 1:
            steps.append(len(kwargs["inputs_embeds"]))

    model = lvlm.model
    settings = {"method": method, "max_new_tokens": 3, **settings}
    alone = [lvlm.ask(PICTURE, question, **settings) for question in six]
    handle = model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    together = lvlm.ask_many(PICTURE, six, **settings)
    handle.remove()
    assert [(one.text, one.tokens) for one in together] == [(one.text, one.tokens) for one in alone]
    # Twenty-two columns, in three layers, of keys and values of 32 numbers.
    own = copies * 22 * 3 * 2 * 32 * 4
    half = sum(parameter.nbytes for parameter in model.parameters()) // 2
    most = half // own if own else 6
    assert most == {0: 6, 1: 5, 2: 2}[copies]
    # Five would do for a copy each, but two groups of three are as few.
    assert set(steps) == {{0: 6 * 2, 1: 3 * 2, 2: 2 * 3}[copies]}

from functools import partial

import pytest
import torch

import iava
from iava import ICD
from tests import families, naive, tiny, twobranch

PICTURES = [tiny.image(1, (40, 32)), tiny.image(2, (60, 25)), tiny.image(3, (31, 64))]
ASKED = [
    ("Is there a dog ?", PICTURES[:1]),
    ("how many red birds , one or two or three , are there on the street ?", PICTURES[1:2]),
    ("What ?", PICTURES[2:]),
]
# Words that the tiny vocabulary knows.
PREFIX = "See the fork and the blue boat on the street , not the picture ."
STEPS = 4


def combine(full: torch.Tensor, negative: torch.Tensor, number: int) -> torch.Tensor:
    return naive.contrasted(full, negative, 1.0, 0.1)


def expected(name: str, question: str, pictures: list) -> list[int]:
    model = twobranch.eager(name)
    branches = [families.inputs(name, (text, pictures)) for text in (question, f"{PREFIX} {question}")]
    return twobranch.decode(*(twobranch.reader(model, inputs) for inputs in branches), combine, STEPS)


# In Gemma 3 the prompts are longer than the sliding window; InstructBLIP's Q-Former reads the prefix, too.
@pytest.mark.parametrize("name", ["llava", "instructblip", "blip-2", "qwen2_vl", "qwen3_vl", "paligemma", "gemma3"])
def test_a_batch_equals_the_naive_branches(name):
    model, processor = families.build(name)
    inputs = families.inputs(name, *ASKED)
    method = ICD(processor, prefix=PREFIX, model=model)
    found = model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS)
    assert twobranch.answers(inputs, found) == [expected(name, *asked) for asked in ASKED]
    assert not torch.equal(model.generate(**inputs, max_new_tokens=STEPS), found)


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl"])
def test_questions_about_one_image_and_a_reading(name):
    lvlm = iava.load(*families.build(name))
    questions = [question for question, _ in ASKED]
    together = lvlm.ask_many(PICTURES[0], questions, method="icd", prefix=PREFIX, max_new_tokens=STEPS)
    reading = lvlm.read(PICTURES[0])
    for question, found in zip(questions, together, strict=True):
        tokens = [token for token in expected(name, question, PICTURES[:1]) if token != 2]
        alone = reading.ask(question, method="icd", prefix=PREFIX, max_new_tokens=STEPS)
        assert found.tokens == alone.tokens == tokens


def test_only_what_follows_the_image_is_run_again():
    model, processor = tiny.model(1), tiny.processor()
    inputs = tiny.inputs(processor, PICTURES[0], "Is there a dog ?", "where is the blue boat ?")
    read: list[int] = []

    def count(_module, args, kwargs):
        read.append((args[0] if args else kwargs["hidden_states"]).shape[1])

    handle = model.get_decoder().layers[0].register_forward_pre_hook(count, with_kwargs=True)
    model.generate(**inputs, custom_generate=ICD(processor, prefix=PREFIX), max_new_tokens=2)
    handle.remove()
    # USER : and nine tokens once; the longer question and ASSISTANT : behind it; the same with the prefix; one step.
    assert read == [11, 8, 8 + len(PREFIX.split()), 1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2},
        {"cache_implementation": "static"},
    ],
)
@pytest.mark.parametrize("name", ["llava", "paligemma"])
def test_without_contrast_it_is_plain_generate(name, options):
    model, processor = families.build(name)
    inputs = families.inputs(name, *ASKED)
    found = []
    for method in (None, ICD(processor, prefix=PREFIX, alpha=0, beta=0)):
        torch.manual_seed(5)
        found.append(model.generate(**inputs, custom_generate=method, max_new_tokens=6, **options))
    assert torch.equal(*found)


def test_beams_carry_both_branches_with_them():
    model, processor = tiny.model(4), tiny.processor()
    question = "Is there a dog ?"
    inputs = tiny.inputs(processor, PICTURES[0], question, "What ?")
    result = model.generate(
        **inputs,
        custom_generate=ICD(processor, prefix=PREFIX),
        max_new_tokens=4,
        num_beams=3,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    full, negative = (
        twobranch.reader(model, naive.prompt_inputs(processor, PICTURES[0], text))
        for text in (question, f"{PREFIX} {question}")
    )
    for beam, score in zip(twobranch.answers(inputs, result.sequences)[:2], result.sequences_scores, strict=False):
        steps = [
            naive.contrasted(full(beam[:n]), negative(beam[:n]), 1.0, 0.1).log_softmax(-1)[token]
            for n, token in enumerate(beam)
        ]
        assert float(score) == pytest.approx(float(sum(steps)) / len(beam), abs=1e-4)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_the_returned_cache_is_the_first_branchs(name, kind):
    model, processor = families.build(name)
    inputs = families.inputs(name, *ASKED)
    options = {"max_new_tokens": 3, "return_dict_in_generate": True, "cache_implementation": kind}
    generate = partial(model.generate, **inputs, min_new_tokens=3, **options)
    method = ICD(processor, prefix=PREFIX, alpha=0, beta=0)
    if (name, kind) == ("gemma3", "static"):
        with pytest.raises(ValueError, match="a static cache with a sliding window has no room for it"):
            generate(custom_generate=method)
        return
    caches = [generate(custom_generate=one).past_key_values for one in (None, method)]
    assert int(caches[0].get_seq_length()) == int(caches[1].get_seq_length())
    seen = torch.nn.functional.pad(inputs["attention_mask"], (0, 2))
    seen[:, -2:] = 1
    for plain, found in zip(caches[0].layers, caches[1].layers, strict=True):
        assert plain.keys.shape == found.keys.shape
        width = min(plain.keys.shape[2], seen.shape[1])
        there = seen[:, -width:].bool() if plain.is_sliding else seen.bool()
        for row, columns in enumerate(there):
            one, other = (layer.values[row, :, :width][:, columns] for layer in (plain, found))
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "USER : <image> {}Is there a dog ? ASSISTANT :",
        "USER : {}Is there a dog ? <image> ASSISTANT :",
        "USER : {}Is there a dog ? <image> yes or no ? ASSISTANT :",
        "USER : <image> Is there a dog ? ASSISTANT : no . USER : {}Where ? ASSISTANT :",
        "SYSTEM : See . USER : <image> <image> {}Where ? ASSISTANT : No ,",
    ],
)
def test_the_prefix_goes_before_the_text_of_the_last_turn(text):
    model, processor = tiny.model(4), tiny.processor()
    pictures = PICTURES[: text.count("<image>")]

    def inputs(prefix):
        return processor(text=[text.format(prefix)], images=pictures, return_tensors="pt")

    found = model.generate(**inputs(""), custom_generate=ICD(processor, prefix=PREFIX), max_new_tokens=STEPS)
    readers = [twobranch.reader(model, dict(inputs(prefix))) for prefix in ("", f"{PREFIX} ")]
    assert twobranch.answers(inputs(""), found) == [twobranch.decode(*readers, combine, STEPS)]


@pytest.mark.parametrize(
    ("place", "text", "disturbed"),
    [
        (
            "system",
            "USER : <image> Is there a dog ? ASSISTANT :",
            "SYSTEM : {} USER : <image> Is there a dog ? ASSISTANT :",
        ),
        (
            "system",
            "SYSTEM : See . USER : <image> Where ? ASSISTANT :",
            "SYSTEM : {} USER : <image> Where ? ASSISTANT :",
        ),
        ("image", "USER : <image> Is there a dog ? ASSISTANT :", "USER : {} <image> Is there a dog ? ASSISTANT :"),
        (
            "image",
            "SYSTEM : See . USER : <image> Where ? ASSISTANT : no . USER : <image> What ? ASSISTANT :",
            "SYSTEM : See . USER : <image> Where ? ASSISTANT : no . USER : {} <image> What ? ASSISTANT :",
        ),
    ],
)
def test_the_role_stands_where_the_setting_says(place, text, disturbed):
    model, processor = tiny.model(4), tiny.processor()
    pictures = PICTURES[: text.count("<image>")]
    inputs, other = (
        dict(processor(text=[one], images=pictures, return_tensors="pt")) for one in (text, disturbed.format(PREFIX))
    )
    method = ICD(processor, prefix=PREFIX, place=place)
    found = model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS)
    readers = [twobranch.reader(model, one) for one in (inputs, other)]
    assert twobranch.answers(inputs, found) == [twobranch.decode(*readers, combine, STEPS)]
    if text.startswith("USER"):
        lvlm = iava.load(model, processor)
        answer = lvlm.ask(PICTURES[0], "Is there a dog ?", method=method, max_new_tokens=STEPS)
        assert answer.tokens == [token for token in twobranch.answers(inputs, found)[0] if token != 2]


@pytest.mark.parametrize(("place", "read"), [("qformer", f"{PREFIX} {{}}"), ("qformer-alone", PREFIX)])
def test_the_role_can_be_for_the_qformer_only(place, read):
    model, processor = families.build("instructblip")
    inputs, eager = families.inputs("instructblip", *ASKED), twobranch.eager("instructblip")
    method = ICD(processor, prefix=PREFIX, place=place, model=model)
    found = model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS)
    wanted = []
    for question, pictures in ASKED:
        own = families.inputs("instructblip", (question, pictures))
        text = processor.qformer_tokenizer([read.format(question)], return_tensors="pt")
        disturbed = {
            **own,
            "qformer_input_ids": text["input_ids"],
            "qformer_attention_mask": text["attention_mask"],
        }
        readers = [twobranch.reader(eager, one) for one in (own, disturbed)]
        wanted.append(twobranch.decode(*readers, combine, STEPS))
    assert twobranch.answers(inputs, found) == wanted
    plain = model.generate(**inputs, custom_generate=ICD(processor, prefix=PREFIX, model=model), max_new_tokens=STEPS)
    assert not torch.equal(plain, found)


def test_a_prompt_without_that_place_is_refused():
    model, processor = tiny.model(), tiny.processor()
    inputs = tiny.inputs(processor, PICTURES[0], "What ?")
    with pytest.raises(ValueError, match="place is 'qformer', but the model has no Q-Former that reads the question"):
        model.generate(**inputs, custom_generate=ICD(processor, place="qformer"), max_new_tokens=1)
    model, processor = families.build("instructblip")
    inputs = families.inputs("instructblip", ASKED[0])
    for place in ("system", "image"):
        with pytest.raises(ValueError, match='use place="question"'):
            model.generate(**inputs, custom_generate=ICD(processor, place=place, model=model), max_new_tokens=1)
    with pytest.raises(ValueError, match="place is 'end': it must be one of question, system, image, qformer"):
        ICD(place="end")


def test_a_method_without_a_processor_and_a_blank_prefix():
    model, processor = tiny.model(), tiny.processor()
    with pytest.raises(ValueError, match=r"use ICD\(processor\)"):
        model.generate(**tiny.inputs(processor, PICTURES[0], "What ?"), custom_generate=ICD(), max_new_tokens=1)
    for prefix in (" ", None):
        with pytest.raises(ValueError, match=f"prefix is {prefix!r}: it must be a role"):
            ICD(prefix=prefix)
    with pytest.raises(ValueError, match="alpha is -1: it must be a number, at least 0"):
        ICD(alpha=-1)

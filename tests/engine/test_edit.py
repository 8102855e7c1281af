import pytest
import torch

from iava.engine import hf
from iava.engine.boundary import capture
from iava.engine.edit import attention_under
from iava.engine.probe import last_row
from iava.engine.prompt import Prompt, prompt_of
from iava.engine.text.instruction import WrittenPrompt
from tests import naive, tiny, tokenizers

PICTURE = tiny.image(3)


def read(model, inputs) -> Prompt:
    """The prompts as the multi-branch model reads them."""
    cache = hf.new_cache(model)
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), capture(model) as boundary, last_row(model) as rows:
        model(**inputs, position_ids=positions, use_cache=True, **{hf.CACHE: cache})
    return prompt_of(model, model, inputs["input_ids"], boundary, inputs, cache, rows=rows)


def under(prompt, proc, text) -> torch.Tensor:
    edits = [WrittenPrompt(proc, prompt.ids(row), 4).replaced(text) for row in range(len(prompt.input_ids))]
    with torch.no_grad():
        return attention_under(prompt, edits)


def general(model, proc, texts, pictures, text=naive.GENERAL) -> tuple[torch.Tensor, Prompt]:
    inputs = dict(proc(text=texts, images=pictures, padding=True, return_tensors="pt"))
    prompt = read(model, inputs)
    return under(prompt, proc, text), prompt


def eager(model, proc, text, pictures) -> torch.Tensor:
    """(L, heads, N) for a whole prompt, by eager attention."""
    inputs = proc(text=[text], images=pictures, return_tensors="pt")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        matrices = model(**inputs, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    return torch.stack([matrix[0, :, -1, inputs["input_ids"][0] == 4] for matrix in matrices])


@pytest.mark.parametrize("shape", [{"seed": 0}, {"seed": 1, "heads": 8, "kv_heads": 2, "width": 64}])
def test_behind_the_shared_prefix_it_is_as_from_the_start(shape):
    model, proc = tiny.model(**shape), tiny.processor()
    questions = ["Is there a dog ?", "What ?", "where is the blue boat ? on the street ?"]
    texts = [tiny.prompt(question) for question in questions]
    pictures = [tiny.image(n) for n in range(3)]
    for text in (naive.GENERAL, "What is the red tree on the table ?"):
        found, _ = general(model, proc, texts, pictures, text)
        for row, picture in zip(found, pictures, strict=True):
            # Single heads put a third of their attention on one token; there float32 kernels differ by some 1e-5.
            torch.testing.assert_close(row, naive.attention(model, proc, picture, text), atol=1e-5, rtol=1e-4)


def test_the_image_is_not_read_again_and_the_cache_is_left_as_it_was(monkeypatch):
    model, proc = tiny.model(), tiny.processor()
    prompt = read(model, tiny.inputs(proc, PICTURE, "Is there a dog ?", "What ?"))
    before = [layer.keys.clone() for layer in prompt.cache.layers]
    monkeypatch.setattr(model.model, "get_image_features", None)
    under(prompt, proc, naive.GENERAL)
    assert all(torch.equal(a, layer.keys) for a, layer in zip(before, prompt.cache.layers, strict=True))


def test_a_prompt_with_the_image_last_keeps_its_order():
    model, proc = tiny.model(), tiny.processor()
    texts = ["USER : Is there a dog ? <image> ASSISTANT :", "USER : What ? <image> ASSISTANT :"]
    found, _ = general(model, proc, texts, [PICTURE] * 2)
    expected = eager(model, proc, f"USER : {naive.GENERAL} <image> ASSISTANT :", [PICTURE])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], expected, atol=1e-5, rtol=0)


def test_prompts_with_the_image_first_and_last_in_one_batch():
    model, proc = tiny.model(), tiny.processor()
    texts = ["USER : Is there a dog ? <image> ASSISTANT :", "USER : <image> What ? ASSISTANT :"]
    found, _ = general(model, proc, texts, [PICTURE] * 2)
    last = eager(model, proc, f"USER : {naive.GENERAL} <image> ASSISTANT :", [PICTURE])
    first = eager(model, proc, tiny.prompt(naive.GENERAL), [PICTURE])
    torch.testing.assert_close(found[0], last, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], first, atol=1e-5, rtol=0)


def test_two_images_a_system_prompt_and_an_earlier_turn_stay():
    model, proc = tiny.model(), tiny.processor()
    head = "SYSTEM : See the picture . USER : <image> and <image> Is there a dog ? ASSISTANT : no . USER :"
    other = tiny.image(4)
    found, _ = general(model, proc, [f"{head} Where ? ASSISTANT :", tiny.prompt("What ?")], [PICTURE, other, other])
    expected = eager(model, proc, f"{head} {naive.GENERAL} ASSISTANT :", [PICTURE, other])
    assert expected.shape[-1] == 18
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    single = naive.attention(model, proc, other, naive.GENERAL)
    torch.testing.assert_close(found[1, ..., :9], single, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "USER : {} <image> {} ASSISTANT :",
        "USER : {} <image> {} <image> {} ASSISTANT : No ,",
        "USER : <image> {} <image> {} ASSISTANT :",
    ],
)
def test_texts_on_several_sides_of_images(text):
    """The first is replaced, the others are removed."""
    model, proc = tiny.model(), tiny.processor()
    count = text.count("{}")
    pictures = [PICTURE, tiny.image(4)][: text.count("<image>")]
    asked = text.format(*["Is there a dog ?", "yes or no ?", "What is it ?"][:count])
    expected = eager(model, proc, text.format(naive.GENERAL, *[""] * (count - 1)), pictures)
    found, _ = general(model, proc, [asked, asked], pictures * 2)
    for row in found:
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)


def test_a_question_that_is_the_general_instruction():
    model, proc = tiny.model(), tiny.processor()
    found, _ = general(model, proc, [tiny.prompt(naive.GENERAL), tiny.prompt("What ?")], [PICTURE] * 2)
    expected = naive.attention(model, proc, PICTURE, naive.GENERAL)
    for row in found:
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "USER: <image>\n{}\nASSISTANT:",
        "USER: <image>\n{}\nASSISTANT: ",
        "USER: <image>{} ASSISTANT: Yes,",
        "USER: {}\n<image> ASSISTANT:",
        "USER: <image>\nWhat?\nASSISTANT: A dog.</s>USER: {}\nASSISTANT:",
    ],
)
@pytest.mark.parametrize("name", ["llava", "llava, new rule"])
def test_prompts_written_by_hand_equal_the_whole_prompt_with_the_other_text(name, text):
    """White space, merges at the edges and the first token of a text are those of the whole prompt."""
    proc, token = tokenizers.processor(name), tokenizers.image_token_id(name)
    model = tiny.model(3, vocabulary=len(proc.tokenizer), image_token=token)

    def attention(question):
        inputs = proc(text=[text.format(question)], images=[PICTURE], return_tensors="pt")
        model.set_attn_implementation("eager")
        with torch.no_grad():
            matrices = model(**inputs, output_attentions=True).attentions
        model.set_attn_implementation("sdpa")
        return torch.stack([matrix[0, :, -1, inputs["input_ids"][0] == token] for matrix in matrices])

    questions = ["What is shown?", "Is this a dog?\n\nIs that a cat?"]
    prompts = [text.format(question) for question in questions]
    prompt = read(model, dict(proc(text=prompts, images=[PICTURE] * 2, padding=True, return_tensors="pt")))
    edits = [WrittenPrompt(proc, prompt.ids(row), token).replaced("Describe this image.") for row in range(2)]
    with torch.no_grad():
        found = attention_under(prompt, edits)
    expected = attention("Describe this image.")
    for row, question in enumerate(questions):
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)
        assert (found[row] - attention(question)).abs().max() > 1e-3

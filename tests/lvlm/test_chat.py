"""Conversations: what is read, how it is rendered, and what is answered."""

import base64
import io

import pytest
import torch
import transformers as hf
from PIL import Image

import iava
from iava.errors import IavaError
from iava.lvlm.conversation import read_conversation
from tests import families, tiny, tokenizers, twobranch
from tests.families import FAMILIES

PICTURES = [tiny.image(1), tiny.image(2, (60, 25))]
WITH_TEMPLATE = [name for name, family in FAMILIES.items() if family.raw is None]


def said(role, *parts):
    """A message; a picture is an image."""
    return {
        "role": role,
        "content": [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
            for part in parts
        ],
    }


CONVERSATIONS = {
    "image, question": [said("user", PICTURES[0], "Is there a dog ?")],
    "system": [said("system", "See ."), said("user", PICTURES[0], "Is there a dog ?")],
    "history": [said("user", PICTURES[0], "What ?"), said("assistant", "a dog ."), said("user", "Where ?")],
    "prefill": [said("user", PICTURES[0], "Is there a dog ?"), said("assistant", "No ,")],
}
SEVERAL = {
    "two images": [said("user", *PICTURES, "What ?")],
    "few-shot": [
        said("user", PICTURES[0], "What ?"),
        said("assistant", "a dog ."),
        said("user", PICTURES[1], "What ?"),
    ],
    "on both sides": [said("user", "What ?", PICTURES[1], "yes or no ?")],
}


def template_inputs(name, messages):
    """What the recipe of the model cards makes."""
    _, processor = families.build(name)
    ends = messages[-1]["role"] == "assistant"
    made = processor.apply_chat_template(
        messages,
        add_generation_prompt=not ends,
        continue_final_message=ends,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return {key: value for key, value in made.items() if key != "labels"}


def answered(model, inputs, **options):
    found = model.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
    row = found[0, inputs["input_ids"].shape[1] :].tolist()
    return row[: row.index(2)] if 2 in row else row


@pytest.mark.parametrize("conversation", CONVERSATIONS | SEVERAL)
@pytest.mark.parametrize("name", WITH_TEMPLATE)
@pytest.mark.slow
def test_a_conversation_is_answered_as_by_generate(name, conversation):
    messages = (CONVERSATIONS | SEVERAL)[conversation]
    model, processor = families.build(name)
    lvlm, inputs = iava.load(model, processor), template_inputs(name, messages)
    assert lvlm.chat(messages, method="greedy", max_new_tokens=4).tokens == answered(model, inputs)
    method = lvlm.method("iava", top_i=0.4, lam=-0.5)
    expected = answered(model, inputs, custom_generate=method)
    assert lvlm.chat(messages, method=method, max_new_tokens=4).tokens == expected


@pytest.mark.parametrize("conversation", [*CONVERSATIONS, "few-shot"])
def test_the_contrast_is_with_the_same_conversation_and_another_text(conversation):
    """ICD's second branch, written out."""
    messages = (CONVERSATIONS | SEVERAL)[conversation]
    model, processor = families.build("llava")
    prefix = "See the fork and the blue boat ."
    last = max(n for n, message in enumerate(messages) if message["role"] == "user")
    content = [{**p, "text": f"{prefix} {p['text']}"} if p["type"] == "text" else p for p in messages[last]["content"]]
    disturbed = [*messages[:last], {"role": "user", "content": content}, *messages[last + 1 :]]
    readers = [twobranch.reader(model, template_inputs("llava", one)) for one in (messages, disturbed)]

    def combine(full, negative, _):
        allowed = full.softmax(-1) >= 0.1 * full.softmax(-1).max()
        return (2 * full - negative).masked_fill(~allowed, -torch.inf)

    expected = [token for token in twobranch.decode(*readers, combine, 4) if token != 2]
    found = iava.load(model, processor).chat(messages, method="icd", prefix=prefix, max_new_tokens=4)
    assert found.tokens == expected


def test_ask_takes_messages_about_the_image():
    lvlm = iava.load(*families.build("llava"))
    plain = lvlm.ask(PICTURES[0], "What ?", method="greedy", max_new_tokens=4)
    for messages in (
        [{"role": "user", "content": "What ?"}],
        [{"role": "user", "content": [{"type": "text", "text": " What ?\n"}]}],
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What ?"}]}],
    ):
        assert lvlm.ask(PICTURES[0], messages, method="greedy", max_new_tokens=4).tokens == plain.tokens
    history = [said("user", "What ?"), said("assistant", "a dog ."), said("user", "Where ?")]
    both = lvlm.ask_many(PICTURES[0], ["What ?", history], max_new_tokens=4)
    assert both[0].tokens == lvlm.ask(PICTURES[0], "What ?", max_new_tokens=4).tokens
    assert both[1].tokens == lvlm.chat(CONVERSATIONS["history"], max_new_tokens=4).tokens
    session = lvlm.read(PICTURES[0])
    assert session.ask(history, max_new_tokens=4).tokens == both[1].tokens
    with pytest.raises(IavaError, match="show an image of their own: use chat"):
        lvlm.ask(PICTURES[0], CONVERSATIONS["history"])


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3", "idefics3", "internvl"])
@pytest.mark.parametrize("method", ["iava", "sid", "greedy", "sample"])
def test_a_conversation_without_an_image_is_decoded_plainly(name, method):
    model, processor = families.build(name)
    lvlm = iava.load(model, processor)
    messages = [said("user", "Where is the dog ?")]
    inputs = template_inputs(name, messages)
    torch.manual_seed(3)
    draws = {"do_sample": True, "top_k": 0} if method == "sample" else {"do_sample": False}
    found = model.generate(**inputs, max_new_tokens=4, **draws)[0, inputs["input_ids"].shape[1] :].tolist()
    torch.manual_seed(3)
    answer = lvlm.chat(messages, method=method, max_new_tokens=4)
    assert answer.tokens == (found[: found.index(2)] if 2 in found else found)
    assert answer.method == method
    assert answer.note == "no image: decoded plainly, because the method has nothing to contrast"
    assert lvlm.chat(CONVERSATIONS["image, question"], method=method, max_new_tokens=1).note is None


def test_a_batch_with_and_without_images():
    lvlm = iava.load(*families.build("qwen2_vl"))
    conversations = [
        CONVERSATIONS["history"],
        [said("user", "Where is the dog ?")],
        SEVERAL["two images"],
        CONVERSATIONS["prefill"],
    ]
    together = lvlm.chat_many(conversations, max_new_tokens=4, explain=True)
    for messages, answer in zip(conversations, together, strict=True):
        alone = lvlm.chat(messages, max_new_tokens=4)
        assert (answer.tokens, answer.note) == (alone.tokens, alone.note)
    assert [answer.note is None for answer in together] == [True, False, True, True]
    assert [answer.explanation is None for answer in together] == [False, True, False, False]
    assert together[0].explanation.boxes is not None
    # Two images share no one grid.
    assert together[2].explanation.boxes is None


def test_models_that_need_an_image_say_so():
    for name in ("instructblip", "blip-2", "paligemma"):
        with pytest.raises(IavaError, match="takes no prompt without an image"):
            iava.load(*families.build(name)).chat([said("user", "What ?")])


def test_models_without_a_template_take_one_question():
    lvlm = iava.load(*families.build("instructblip"))
    assert lvlm.chat([said("user", PICTURES[0], "What ?")], max_new_tokens=3).tokens == (
        lvlm.ask(PICTURES[0], "What ?", max_new_tokens=3).tokens
    )
    for messages in (CONVERSATIONS["system"], CONVERSATIONS["prefill"], SEVERAL["two images"]):
        with pytest.raises(IavaError, match="no chat template, so it takes one image and one question"):
            lvlm.chat(messages)


def uri(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_openai_messages():
    lvlm = iava.load(*families.build("llava"))
    expected = lvlm.chat(CONVERSATIONS["history"], max_new_tokens=4)
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri(PICTURES[0])}}]},
        {"role": "assistant", "content": "a dog ."},
        {"role": "user", "content": "Where ?"},
    ]
    messages[0]["content"].append({"type": "text", "text": "What ?"})
    assert lvlm.chat(messages, max_new_tokens=4).tokens == expected.tokens
    messages[0]["content"][0] = {"type": "image_url", "image_url": uri(PICTURES[0])}
    assert lvlm.chat(messages, max_new_tokens=4).tokens == expected.tokens
    messages[0]["content"][0] = {"type": "image"}
    assert lvlm.chat(messages, images=[PICTURES[0]], max_new_tokens=4).tokens == expected.tokens
    messages[0]["content"] = "What ?"
    assert lvlm.chat(messages, images=[PICTURES[0]], max_new_tokens=4).tokens == expected.tokens


def test_images_are_taken_in_the_order_of_the_parts():
    last = {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What ?"}]}
    found = read_conversation([said("user", PICTURES[1]), last], PICTURES)
    assert [image.size for image in found.images] == [(60, 25), (40, 32), (60, 25)]


@pytest.mark.parametrize(
    ("messages", "images", "complaint"),
    [
        ([], [], "the question is []"),
        ("", [], "the question is ''"),
        (3, [], "the question is 3"),
        (["What ?"], [], "message 1 is 'What ?': it must be {"),
        ([{"role": "user"}], [], "message 1 is {'role': 'user'}"),
        ([{"role": "tool", "content": "a"}], [], "message 1 has the role 'tool': it must be one of system, user"),
        ([{"role": "user", "content": 5}], [], "the content of message 1 is 5"),
        ([{"role": "user", "content": [{"type": "video"}]}], [], "message 1 has the part {'type': 'video'}"),
        ([{"role": "user", "content": [{"type": "text"}]}], [], "message 1 has the part {'type': 'text'}"),
        ([said("system", "See ."), said("assistant", "a")], [], "the messages have no user turn"),
        ([said("user", "What ?"), said("system", "See .")], [], "the last message is a system prompt"),
        ([said("user", PICTURES[0])], [], "message 1 (user) has no text"),
        ("a \ud83d dog ?", [], "message 1 holds half of a surrogate pair ('a \\ud83d dog ?')"),
        ([said("user", "What ?"), said("assistant", " ")], [], "message 2 (assistant) has no text"),
        (
            [said("assistant", "a"), said("user", "What ?"), said("assistant", "a"), said("assistant", "b")],
            [],
            "beginning",
        ),
        ([said("assistant", PICTURES[0], "a"), said("user", "What ?")], [], "shows an image in the role 'assistant'"),
        ([{"role": "user", "content": [{"type": "image"}]}], [], "no image is left for it"),
        ([{"role": "user", "content": [{"type": "image"}]}], PICTURES, "2 images are given for 1 image parts"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], [], "an image_url without an address"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}],
            [],
            "it must be a data URI or an http(s) address",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://localhost/a"}}]}],
            [],
            "may not be fetched",
        ),
    ],
)
def test_messages_that_are_none_get_one_line(messages, images, complaint):
    with pytest.raises(IavaError) as caught:
        read_conversation(messages, images)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["system", "user", "assistant"])
def test_special_tokens_in_any_text_are_refused(place):
    lvlm = iava.load(*families.build("llava"))
    messages = [said("system", "See ."), *CONVERSATIONS["history"]]
    messages = [
        said(m["role"], *[p.get("image", f"{p.get('text')} </s>") for p in m["content"]]) if m["role"] == place else m
        for m in messages
    ]
    with pytest.raises(IavaError, match="contains '</s>', which means something else to the model"):
        lvlm.chat(messages)


def small(name):
    """A tiny random model for a processor of `tests.tokenizers`."""
    processor = tokenizers.processor(name)
    size = len(processor.tokenizer)
    vision = families._vision(hf.SiglipVisionConfig, image_size=32, vision_use_head=False)
    token = tokenizers.image_token_id(name)
    if name == "gemma 3":
        text = families._text(
            hf.Gemma3TextConfig,
            head_dim=8,
            query_pre_attn_scalar=8,
            vocab_size=size,
            layer_types=["full_attention"] * 3,
        )
        config = hf.Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=4, image_token_index=token)
        return families.spread(hf.Gemma3ForConditionalGeneration(config)), processor
    config = hf.Idefics3Config(
        vision_config=families._vision(hf.Idefics3VisionConfig, image_size=32),
        text_config=families._text(hf.LlamaConfig, vocab_size=size),
        image_token_id=token,
        scale_factor=2,
    )
    return families.spread(hf.Idefics3ForConditionalGeneration(config)), processor


@pytest.mark.parametrize("name", ["gemma 3", "idefics 3"])
def test_a_prompt_begins_with_one_token_where_the_template_writes_it(name):
    """Gemma 3 and Idefics 3: the template and the tokenizer would both write it."""
    model, processor = small(name)
    messages = [said("user", PICTURES[0], "What is shown?")]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    start = processor.tokenizer.bos_token_id
    assert inputs["input_ids"][0].tolist().count(start) == 1
    ends = set(iava.lvlm.generation.end_tokens(model, processor.tokenizer))
    expected = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    stop = next((n for n, token in enumerate(expected) if token in ends), len(expected))
    lvlm = iava.load(model, processor)
    assert lvlm.ask(PICTURES[0], "What is shown?", method="greedy", max_new_tokens=5).tokens == expected[:stop]
    assert lvlm.chat(messages, method="greedy", max_new_tokens=5).tokens == expected[:stop]


def test_a_system_prompt_inside_the_users_turn_stays():
    """Gemma 3 writes it there, so that tokens alone do not tell it from the question."""
    model, processor = small("gemma 3")
    messages = [said("system", "Be brief."), said("user", PICTURES[0], "What is shown?")]
    general = [messages[0], said("user", PICTURES[0], "Describe this image.")]

    def attention(conversation):
        inputs = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        model.set_attn_implementation("eager")
        with torch.no_grad():
            matrices = model(**inputs, output_attentions=True).attentions
        model.set_attn_implementation("sdpa")
        return torch.stack([m[0, :, -1, inputs["input_ids"][0] == model.config.image_token_id] for m in matrices])

    lvlm = iava.load(model, processor)
    seen = lvlm.chat(messages, max_new_tokens=1, explain=True).explanation
    torch.testing.assert_close(seen.heads_query, attention(messages), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.heads_general, attention(general), atol=1e-5, rtol=1e-4)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with pytest.raises(IavaError, match=r"cannot be told from the question: ask with iava\.load"):
        model.generate(**inputs, custom_generate=iava.IAVA(processor), max_new_tokens=1)


def test_an_image_that_many_questions_share_is_read_once(monkeypatch):
    """Few-shot prompts with the same images, too."""
    model, processor = families.build("llava")
    lvlm = iava.load(model, processor)
    processed = []
    kind = type(processor.image_processor)
    preprocess = kind.preprocess

    def count(self, images, **more):
        processed.append(len(images))
        return preprocess(self, images, **more)

    monkeypatch.setattr(kind, "preprocess", count)
    lvlm.ask_many(PICTURES[0], ["What ?", "Where ?", "Is there a dog ?"], max_new_tokens=2)
    assert processed == [1]


def test_a_picture_may_be_of_any_kind(tmp_path):
    lvlm = iava.load(*families.build("llava"))
    path = tmp_path / "a.png"
    PICTURES[0].save(path)
    expected = lvlm.ask(PICTURES[0], "What ?", max_new_tokens=3).tokens
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), uri(PICTURES[0])):
        assert lvlm.ask(source, "What ?", max_new_tokens=3).tokens == expected
    with pytest.raises(IavaError, match="may not be fetched"):
        lvlm.ask("http://localhost:1/a.png", "What ?")
    wide = iava.load(*families.build("llava"), max_pixels=100)
    with pytest.raises(IavaError, match="and 100 in all are read"):
        wide.ask(Image.new("RGB", (20, 20)), "What ?")

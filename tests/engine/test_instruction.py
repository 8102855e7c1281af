"""A prompt's question is replaced as if the whole prompt had been written with the other text."""

import pytest

from iava.engine.text.instruction import WrittenPrompt
from iava.errors import IavaError
from tests import tiny, tokenizers
from tests.tokenizers import IMAGE_FIRST, PROCESSORS, REAL

NAMES = [*PROCESSORS, *(pytest.param(name, marks=pytest.mark.hub) for name in REAL)]
GENERAL = "Describe this image."
PICTURE = tiny.image(0, (96, 48))


def said(role, *parts):
    """A message; None is an image."""
    return {
        "role": role,
        "content": [
            {"type": "image", "image": PICTURE} if part is None else {"type": "text", "text": part} for part in parts
        ],
    }


SYSTEM = said("system", "You are brief.")
CONVERSATIONS = {
    "image, question": [said("user", None, "What is shown?")],
    "question, image": [said("user", "What is shown?", None)],
    "question, image, ending": [said("user", "What is it?", None, "Answer yes or no.")],
    "question, ending": [said("user", None, "What is it?", "Answer yes or no.")],
    "lines": [said("user", None, "Is this a dog?\nIs that a cat?")],
    "no white space": [said("user", None, "«что здесь»…")],
    "two images": [said("user", None, None, "Is it in both?")],
    "text between images": [said("user", None, "Is this", None, "the same dog?")],
    "system": [SYSTEM, said("user", "What is shown?", None)],
    "history": [said("user", None, "What is it?"), said("assistant", "A dog."), said("user", "Where is it?")],
    "few-shot": [
        said("user", "Is it a dog?", None),
        said("assistant", "Yes."),
        said("user", "Is it a cat?", None),
    ],
    "system and history": [
        SYSTEM,
        said("user", None, "What is it?"),
        said("assistant", "A dog."),
        said("user", "Where is it?"),
    ],
    "prefill": [said("user", None, "What is shown?"), said("assistant", "Yes,")],
}


def tokens(name, messages):
    """The ids of a conversation, as its processor makes them."""
    ends = messages[-1]["role"] == "assistant"
    made = tokenizers.processor(name).apply_chat_template(
        messages, add_generation_prompt=not ends, continue_final_message=ends, tokenize=True, return_dict=True
    )
    return [int(id) for id in made["input_ids"][0]]


def rewritten(messages, change):
    """The conversation with the texts of the last user turn changed: `change` gets them and gives the new ones."""
    last = max(n for n, message in enumerate(messages) if message["role"] == "user")
    content = messages[last]["content"]
    new = iter(change([part["text"] for part in content if part["type"] == "text"]))
    parts = [part if part["type"] == "image" else {"type": "text", "text": next(new)} for part in content]
    kept = [part for part in parts if part.get("text") != ""]
    return [*messages[:last], {"role": "user", "content": kept}, *messages[last + 1 :]]


def applied(ids, edits):
    for edit in sorted(edits, key=lambda edit: -edit.start):
        ids = ids[: edit.start] + edit.tokens + ids[edit.stop :]
    return ids


def written(name, ids):
    return WrittenPrompt(tokenizers.processor(name), ids, tokenizers.image_token_id(name))


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_question_is_replaced_as_if_the_conversation_were_written_anew(name, conversation):
    messages = CONVERSATIONS[conversation]
    ids = tokens(name, messages)
    expected = tokens(name, rewritten(messages, lambda texts: [GENERAL] + [""] * (len(texts) - 1)))
    assert expected != ids
    if name.endswith("gemma 3") and conversation in UNCLEAR_IN_GEMMA:
        with pytest.raises(IavaError, match="system prompt into the user's turn"):
            written(name, ids).replaced(GENERAL)
        return
    edits = written(name, ids).replaced(GENERAL)
    assert applied(ids, edits) == expected
    image = tokenizers.image_token_id(name)
    assert not any(image in ids[edit.start : edit.stop] for edit in edits)


UNCLEAR_IN_GEMMA = ("question, image, ending", "text between images", "system")


def ids_of(name, text, images=1):
    """The ids of a prompt that is written by hand."""
    made = tokenizers.processor(name)(text=[text], images=[[PICTURE] * images])
    return [int(id) for id in made["input_ids"][0]]


HAND_WRITTEN = [
    ("llava", "USER: <image>\n{}\nASSISTANT:"),
    ("llava", "USER: <image>\n{}\nASSISTANT: "),
    ("llava", "USER: <image>\n{} ASSISTANT:"),
    ("llava", "USER:<image>{}ASSISTANT:"),
    ("llava", "  USER: <image>\n\n  {}  \n ASSISTANT: Yes,"),
    ("llava", "A chat with a person. USER: <image>\n{}\nASSISTANT: The answer"),
    ("llava", "USER: <image>\nWhat?\nASSISTANT: A dog.</s>USER: {}\nASSISTANT:"),
    ("llava", "USER: {}\n<image>\nASSISTANT:"),
    ("llava, new rule", "USER: <image>\n{}\nASSISTANT:"),
    ("llava, new rule", "USER: <image>{} ASSISTANT: "),
    ("mistral", "[INST] <image>{} [/INST]"),
    ("mistral", "[INST] <image>\n{}[/INST] Yes"),
    ("mistral", "[INST]{}<image>[/INST]"),
    ("llama 2", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\n{} [/INST]"),
    ("mistral, tokens", "[INST]<image>{}[/INST]"),
    ("mistral, tokens", "<s>[INST] Hi [/INST] Hi</s>[INST] <image>\n{} [/INST] "),
    ("llama 3", "<|start_header_id|>user<|end_header_id|>\n\n<image>{}<|eot_id|>"),
    ("qwen 2.5", "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"),
    ("qwen 2.5", "<|im_start|>user\n{}<|vision_start|><|image_pad|><|vision_end|>\n<|im_end|><|im_start|>assistant"),
    ("gemma 3", "<start_of_turn>user\n<start_of_image>{}<end_of_turn>\n<start_of_turn>model\n"),
    ("idefics 3", "User:<image>{}<end_of_utterance>\nAssistant: Yes"),
    ("internvl", "<|im_start|>user\n<IMG_CONTEXT>\n{}<|im_end|>\n<|im_start|>assistant\nIt is"),
    ("paligemma", "<image>{}"),
    ("paligemma", "{}"),
    ("blip-2", "{}"),
    ("instructblip", "{}"),
]


REALLY = [pytest.param(f"real {name}", p, marks=pytest.mark.hub) for name, p in HAND_WRITTEN if f"real {name}" in REAL]


@pytest.mark.parametrize("question", ["What is shown?", "Is this a dog?\n\nIs that a cat?", "«что здесь»…"])
@pytest.mark.parametrize(("name", "prompt"), [*HAND_WRITTEN, *REALLY])
def test_a_prompt_written_by_hand_keeps_its_own_white_space(name, prompt, question):
    if name.endswith("gemma 3") and "\n\n" in question:
        pytest.skip("the template could have written the first line as a system prompt")
    ids = ids_of(name, prompt.format(question))
    found = written(name, ids)
    assert applied(ids, found.replaced(GENERAL)) == ids_of(name, prompt.format(GENERAL))
    assert found.question == question
    role = "You are a confused detector."
    assert applied(ids, found.prefixed(role)) == ids_of(name, prompt.format(f"{role} {question}"))


@pytest.mark.parametrize(
    ("name", "prompt", "complaint"),
    [
        ("llava", "<image>\nWhat is shown?", "no 'USER:' stands before it"),
        ("llava", "USER: <image>\nWhat is shown?", "no 'ASSISTANT:' stands behind it"),
        ("llava", "USER: <image>\nWhat?\nASSISTANT: No. USER: Why?", "no 'ASSISTANT:' stands behind it"),
        ("llava", "USER: <image>\nDoes it say USER: on it? ASSISTANT:", "'USER:' stands twice without 'ASSISTANT:'"),
        ("llava", "USER: <image>\nDoes it say ASSISTANT: on it? ASSISTANT:", "'ASSISTANT:' stands 2 times behind"),
        ("llava", "USER: <image>\n ASSISTANT:", "the last user turn of the prompt has no text to replace"),
        ("qwen 2.5", "<|image_pad|>What?", "no '<|im_start|>user' stands before it"),
        (
            "gemma 3",
            "<start_of_turn>user\nA.\n\nB?<start_of_image><end_of_turn>\n<start_of_turn>model\n",
            "system prompt",
        ),
    ],
)
def test_a_question_without_a_place_is_refused_in_one_line(name, prompt, complaint):
    with pytest.raises(IavaError, match=r"question|text to replace") as caught:
        written(name, ids_of(name, prompt)).replaced(GENERAL)
    assert complaint in str(caught.value)
    assert "iava.load(model, processor).chat" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_processor_without_a_template_must_place_the_image_itself():
    proc = tokenizers.PROCESSORS["llava"]()
    proc.chat_template = None
    with pytest.raises(IavaError, match=r"set processor\.chat_template"):
        WrittenPrompt(proc, ids_of("llava", "USER: <image>\nWhat? ASSISTANT:"), tokenizers.image_token_id("llava"))
    proc.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(IavaError, match=r"the chat template cannot render this conversation \(no such role\)"):
        WrittenPrompt(proc, [1, 2], tokenizers.image_token_id("llava"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("last", [False, True])
def test_an_answer_in_tokens_of_its_own_stays(name, last):
    """An earlier or a prefilled answer whose tokens a tokenizer would not make, letter by letter."""

    def talk(question, answer):
        turns = [said("user", None, "Who?"), said("assistant", "A dog."), said("user", question)]
        return tokens(
            name, [*turns, said("assistant", answer)] if last else [turns[0], said("assistant", answer), turns[2]]
        )

    def spelt(question):
        one, other = talk(question, "Yes it is."), talk(question, "No")
        start = next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        stop = next((n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), 0)
        letters = [id for letter in "Yesitis." for id in tokenizers.processor(name).tokenizer.encode(letter)]
        plain = [id for id in letters if id not in tokenizers.processor(name).tokenizer.all_special_ids]
        return one[:start] + plain + one[len(one) - stop :]

    ids = spelt("Where is it?")
    assert ids != talk("Where is it?", "Yes it is.")
    assert applied(ids, written(name, ids).replaced(GENERAL)) == spelt(GENERAL)


ROLE = "You are a confused detector."


@pytest.mark.parametrize("conversation", [name for name in CONVERSATIONS if name != "lines"])
@pytest.mark.parametrize("name", NAMES)
def test_a_role_before_the_question(name, conversation):
    messages = CONVERSATIONS[conversation]
    if name.endswith("gemma 3") and conversation in UNCLEAR_IN_GEMMA:
        pytest.skip("refused, as for the general instruction")
    ids = tokens(name, messages)
    expected = tokens(name, rewritten(messages, lambda texts: [f"{ROLE} {texts[0]}", *texts[1:]]))
    assert applied(ids, written(name, ids).prefixed(ROLE)) == expected


@pytest.mark.parametrize(
    "conversation", ["image, question", "question, image", "few-shot", "history", "system", "prefill"]
)
@pytest.mark.parametrize("name", [name for name in NAMES if "gemma" not in str(name)])
def test_a_role_in_place_of_the_system_prompt(name, conversation):
    messages = CONVERSATIONS[conversation]
    ids = tokens(name, messages)
    expected = tokens(name, [said("system", ROLE), *(m for m in messages if m["role"] != "system")])
    assert applied(ids, written(name, ids).prefixed(ROLE, "system")) == expected


def test_a_role_where_the_system_prompt_stands_in_the_users_turn():
    ids = tokens("gemma 3", [said("user", None, "What is it?")])
    expected = tokens("gemma 3", [said("system", ROLE), said("user", None, "What is it?")])
    assert applied(ids, written("gemma 3", ids).prefixed(ROLE, "system")) == expected
    with_one = tokens("gemma 3", CONVERSATIONS["system"])
    with pytest.raises(IavaError, match="the chat template writes the system prompt into the user's turn"):
        written("gemma 3", with_one).prefixed(ROLE, "system")


IMAGE_PLACES = [
    ("llava", "USER: {}<image>\nWhat?\nASSISTANT:"),
    ("llava", "USER: {}<image>\n<image>\nWhat?\nASSISTANT: Yes"),
    ("llava", "USER: {}<image>\nWhat?\nASSISTANT: A dog.</s>USER: Why?\nASSISTANT:"),
    ("mistral", "[INST] {}<image>\nWhat? [/INST]"),
    ("llama 3", "<|start_header_id|>user<|end_header_id|>\n\n{}<image>What?<|eot_id|>"),
    (
        "qwen 3",
        "<|im_start|>user\n{}<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n",
    ),
    ("internvl", "<|im_start|>user\n{}<IMG_CONTEXT>\nWhat?<|im_end|>\n<|im_start|>assistant\n"),
]


@pytest.mark.parametrize(("name", "prompt"), IMAGE_PLACES)
def test_a_role_before_the_image(name, prompt):
    count = max(prompt.count("<image>"), 1)
    ids = ids_of(name, prompt.format(""), count)
    found = written(name, ids).prefixed(ROLE, "image")
    assert applied(ids, found) == ids_of(name, prompt.format(f"{ROLE}\n"), count)


@pytest.mark.parametrize("name", IMAGE_FIRST)
def test_no_place_before_an_image_that_the_processor_places(name):
    found = written(name, ids_of(name, "What?"))
    with pytest.raises(IavaError, match='use place="question"'):
        found.prefixed(ROLE, "image")
    with pytest.raises(IavaError, match='no system prompt: use place="question"'):
        found.prefixed(ROLE, "system")
    with pytest.raises(IavaError, match="place is 'middle': it must be one of question, image, system"):
        found.prefixed(ROLE, "middle")


def test_a_prompt_without_an_image_has_a_question_too():
    ids = tokens("qwen 2.5", [said("user", "What is it?")])
    assert applied(ids, written("qwen 2.5", ids).replaced(GENERAL)) == tokens("qwen 2.5", [said("user", GENERAL)])

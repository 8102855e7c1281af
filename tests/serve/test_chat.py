"""Chat completions through the official client: the answers are those of the model alone."""

import base64
import inspect
import io
import math

import openai
import pytest
import torch

from tests import tiny
from tests.serve.serving import running, user

QUESTION = "Is there a dog ?"


def ask(served, *messages, **options):
    return served.client().chat.completions.create(model="tiny", messages=list(messages), **options)


@pytest.mark.parametrize("method", ["greedy", "iava", "vcd", "pai"])
def test_an_answer_is_that_of_the_model_alone(served, lvlm, method):
    expected = lvlm.ask(tiny.image(), QUESTION, method=method, max_new_tokens=9)
    found = ask(served, user(QUESTION, tiny.image()), max_tokens=9, extra_body={"iava": {"method": method}})
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].message.role == "assistant"
    assert found.object == "chat.completion"
    assert found.model == "tiny"
    assert found.usage.completion_tokens == len(expected.tokens)
    prompt = tiny.inputs(tiny.processor(), tiny.image(), QUESTION)["input_ids"]
    assert found.usage.prompt_tokens == prompt.numel()
    assert found.usage.total_tokens == prompt.numel() + len(expected.tokens)
    assert found.iava["method"] == method
    assert found.iava["settings"] == expected.settings


def test_the_settings_of_a_request_are_used(served, lvlm):
    chosen = {"alpha": 2.5, "top_i": 0.5, "negative": "hide"}
    expected = lvlm.ask(tiny.image(), QUESTION, method="iava", max_new_tokens=9, **chosen)
    found = ask(served, user(QUESTION, tiny.image()), max_tokens=9, extra_body={"iava": {"method": "iava", **chosen}})
    assert found.choices[0].message.content == expected.text
    assert found.iava["settings"] == expected.settings


def test_a_stream_has_the_same_answer(served, lvlm):
    expected = lvlm.ask(tiny.image(), QUESTION, method="iava", max_new_tokens=9)
    chunks = list(
        ask(
            served,
            user(QUESTION, tiny.image()),
            max_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"iava": {"method": "iava"}},
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(texts) == expected.text
    assert len([text for text in texts if text]) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 9
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_in_done(served):
    body = {"model": "tiny", "messages": [user(QUESTION, tiny.image())], "max_tokens": 2, "stream": True}
    with served.http() as http:
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    assert "usage" not in answer.text


@pytest.mark.parametrize(
    ("options", "method", "generation"),
    [
        ({"temperature": 1.5}, "iava", {"do_sample": True, "temperature": 1.5}),
        ({"temperature": 1.2, "top_p": 0.7}, "vcd", {"do_sample": True, "temperature": 1.2, "top_p": 0.7}),
        ({}, "sample", None),
        ({"temperature": 0.8, "top_p": 0.9}, "sample", {"do_sample": True, "temperature": 0.8, "top_p": 0.9}),
        ({}, "apc", None),
        ({"temperature": 1.4}, "apc", {"do_sample": True, "temperature": 1.4}),
    ],
)
def test_a_seed_draws_the_same_answers_as_the_model_alone(served, lvlm, options, method, generation):
    given = {"method": method, "max_new_tokens": 8, "generation": generation}
    alone = [lvlm.ask(tiny.image(), QUESTION, seed=seed, **given).text for seed in (7, 8, 9)]
    assert len(set(alone)) == 3
    body = {"iava": {"method": method}}
    found = ask(served, user(QUESTION, tiny.image()), max_tokens=8, seed=7, n=3, extra_body=body, **options)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert [choice.message.content for choice in found.choices] == alone


@pytest.mark.slow
def test_draws_follow_the_distribution_after_the_contrast(served, lvlm):
    temperature, top_p, count = 1.3, 0.8, 400
    logits = lvlm.ask(tiny.image(), QUESTION, method="iava", max_new_tokens=1, beta=0).logits
    probabilities = (logits / temperature).softmax(dim=0)
    ranked, order = probabilities.sort(descending=True)
    kept = int((ranked.cumsum(dim=0) < top_p).sum()) + 1
    expected = torch.zeros_like(probabilities)
    expected[order[:kept]] = ranked[:kept] / ranked[:kept].sum()
    options = {"temperature": temperature, "top_p": top_p, "seed": 0, "n": 10, "max_tokens": 1, "logprobs": True}
    seen = torch.zeros_like(expected)
    for start in range(0, count, 10):
        body = {"iava": {"method": "iava", "beta": 0}}
        found = ask(served, user(QUESTION, tiny.image()), **{**options, "seed": start}, extra_body=body)
        for choice in found.choices:
            words = [entry.token for entry in choice.logprobs.content] or ["</s>"]
            seen[lvlm.processor.tokenizer.convert_tokens_to_ids(words[0])] += 1
    assert seen[expected == 0].sum() == 0
    assert (seen / count - expected).abs().max() < 4 * math.sqrt(0.25 / count)


def test_logprobs_are_those_after_the_contrast(served, lvlm):
    expected = lvlm.ask(tiny.image(), QUESTION, method="iava", max_new_tokens=1, beta=0)
    logprobs = expected.logits.log_softmax(dim=0)
    found = ask(
        served,
        user(QUESTION, tiny.image()),
        max_tokens=1,
        logprobs=True,
        top_logprobs=3,
        extra_body={"iava": {"method": "iava", "beta": 0}},
    )
    (entry,) = found.choices[0].logprobs.content
    best = logprobs.topk(3)
    decode = lvlm.processor.decode
    assert entry.token == decode([expected.tokens[0]])
    assert bytes(entry.bytes).decode() == entry.token
    assert entry.logprob == pytest.approx(float(best.values[0]), abs=1e-4)
    assert [top.token for top in entry.top_logprobs] == [decode([token]) for token in best.indices]
    assert [top.logprob for top in entry.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_implausible_tokens_have_no_logprob(served):
    found = ask(
        served,
        user(QUESTION, tiny.image()),
        max_tokens=1,
        logprobs=True,
        top_logprobs=5,
        extra_body={"iava": {"method": "iava", "beta": 1}},
    )
    (entry,) = found.choices[0].logprobs.content
    assert [top.logprob for top in entry.top_logprobs] == [0.0]


def test_logprobs_of_a_stream_are_those_of_the_answer(served):
    options = {"max_tokens": 6, "logprobs": True, "top_logprobs": 2}
    whole = ask(served, user(QUESTION, tiny.image()), **options).choices[0].logprobs.content
    chunks = ask(served, user(QUESTION, tiny.image()), stream=True, **options)
    parts = [entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert [entry.model_dump() for entry in parts] == [entry.model_dump() for entry in whole]


def test_a_stop_string_ends_the_answer_before_itself(served, lvlm):
    text = lvlm.ask(tiny.image(), QUESTION, method="greedy", max_new_tokens=9).text
    words = text.split()
    stop = words[3]
    assert stop not in words[:3]
    for stream in (False, True):
        found = ask(served, user(QUESTION, tiny.image()), max_tokens=9, stop=["never", stop], stream=stream)
        if stream:
            chunks = list(found)
            content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            content, reason = found.choices[0].message.content, found.choices[0].finish_reason
        assert content == " ".join(words[:3])
        assert reason == "stop"


CONVERSATIONS = {
    "several images and a history": [
        {"role": "system", "content": "Describe this picture"},
        user("What ?", tiny.image(1)),
        {"role": "assistant", "content": "a dog"},
        user("Where ?", tiny.image(2)),
    ],
    "two images in a turn": [user("What ?", tiny.image(1), tiny.image(2))],
    "the beginning of an answer": [user("What ?", tiny.image(1)), {"role": "assistant", "content": "Yes ,"}],
    "an image in an earlier turn": [
        user("What ?", tiny.image(1)),
        {"role": "assistant", "content": "a dog"},
        user("Where ?"),
    ],
    "text alone": [user("What ?")],
}


@pytest.mark.parametrize("method", ["greedy", "iava", "vcd"])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_any_conversation_is_answered_as_by_the_model_alone(served, lvlm, messages, method):
    expected = lvlm.chat(messages, method=method, max_new_tokens=9)
    found = ask(served, *messages, max_tokens=9, extra_body={"iava": {"method": method}})
    assert found.choices[0].message.content == expected.text
    assert found.usage.completion_tokens == len(expected.tokens)


@pytest.mark.parametrize("sent", [lambda message: message, lambda message: message.model_dump()])
def test_an_answer_of_the_client_can_be_sent_back_as_history(served, lvlm, sent):
    first = ask(served, user("What ?", tiny.image()), max_tokens=5).choices[0].message
    found = ask(served, user("What ?", tiny.image()), sent(first), user("Where ?"), max_tokens=5)
    history = [user("What ?", tiny.image()), {"role": "assistant", "content": first.content}, user("Where ?")]
    expected = lvlm.chat(history, method="greedy", max_new_tokens=5)
    assert found.choices[0].message.content == expected.text


def test_the_prompt_is_the_whole_conversation(served, lvlm):
    """Compares with plain `generate` on the text of the chat template."""
    text = "SYSTEM : Describe this picture USER : <image> What ? ASSISTANT : a dog USER : <image> Where ? ASSISTANT :"
    processor = lvlm.processor
    inputs = processor(text=[text], images=[[tiny.image(1), tiny.image(2)]], return_tensors="pt")
    expected = lvlm.model.generate(**inputs, max_new_tokens=9, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    system, *rest = CONVERSATIONS["several images and a history"]
    for role in ("system", "developer"):
        found = ask(served, {**system, "role": role}, *rest, max_tokens=9)
        assert found.choices[0].message.content == processor.decode(expected, skip_special_tokens=True).strip()
        assert found.usage.prompt_tokens == inputs["input_ids"].numel()


def test_text_alone_is_decoded_plainly(served, lvlm):
    inputs = lvlm.processor(text=["USER : What ? ASSISTANT :"], return_tensors="pt")
    expected = lvlm.model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    found = ask(served, user("What ?"), max_tokens=5, extra_body={"iava": {"method": "iava"}})
    assert found.choices[0].message.content == lvlm.processor.decode(expected, skip_special_tokens=True).strip()


def test_an_explained_answer_names_its_tokens_and_its_page(served, lvlm):
    expected = lvlm.ask(tiny.image(), QUESTION, method="iava", max_new_tokens=4, explain=True)
    for stream in (False, True):
        options = {"max_tokens": 4, "stream": stream, "extra_body": {"iava": {"method": "iava", "explain": True}}}
        found = ask(served, user(QUESTION, tiny.image()), **options)
        report = list(found)[-1].iava if stream else found.iava
        assert report["selected"] == expected.explanation.selected.nonzero().flatten().tolist()
        with served.http() as http:
            page = http.get(report["page"])
        assert page.status_code == 200
        assert QUESTION in page.text
        assert expected.text.split()[0] in page.text


def test_the_default_method_of_the_server(lvlm):
    chosen = {"alpha": 2.5, "top_i": 0.5}
    expected = lvlm.ask(tiny.image(), QUESTION, method="iava", max_new_tokens=9, **chosen)
    with running(lvlm, method="iava", settings=chosen) as served:
        found = ask(served, user(QUESTION, tiny.image()), max_tokens=9)
        assert found.choices[0].message.content == expected.text
        assert found.iava["settings"] == expected.settings
        vcd = ask(served, user(QUESTION, tiny.image()), max_tokens=1, extra_body={"iava": {"method": "vcd"}})
        assert vcd.iava["settings"] == lvlm.method("vcd").settings()


WRONG = [
    ({"temperature": 3}, "temperature", "less than or equal to 2"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 1000}, "n", "at most"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 100_000}, "max_tokens", "at most"),
    ({"max_completion_tokens": 100_000}, "max_completion_tokens", "at most"),
    ({"max_tokens": 250}, "max_tokens", "positions"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
    ({"stop": ["a"] * 5}, "stop", "at most 4"),
    ({"stop": ""}, "stop.0", "at least 1"),
    ({"tools": []}, "tools", "not supported"),
    ({"response_format": {"type": "json_object"}}, "response_format.type", "text"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "0"),
    ({"logit_bias": {"1": 2}}, "logit_bias", "not supported"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "user"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content", "at least 1"),
    ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages.0.content.0", "image_url"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        "messages.0.content.0.text",
        "valid string",
    ),
    ({"messages": [user("<image> ?")]}, "messages", "'<image>'"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages", "no user turn"),
    ({"temperature": 0.5}, "temperature", "takes the most probable token"),
    ({"temperature": 0, "iava": {"method": "sample"}}, "temperature", "draws its tokens"),
    ({"top_p": 0.5}, "top_p", "temperature above 0"),
    ({"temperature": 0, "top_p": 0.5, "iava": {"method": "iava"}}, "top_p", "temperature above 0"),
    ({"iava": {"method": "beam"}}, "iava.method", "unknown method 'beam'"),
    ({"iava": {"alpha": 1}}, "iava", "no setting 'alpha'"),
    ({"iava": {"method": "iava", "alpha": -1}}, "iava", "alpha is -1"),
    ({"iava": {"method": "iava", "top_i": [1]}}, "iava", "top_i"),
    ({"messages": [user("What ?")], "iava": {"explain": True}}, "iava.explain", "image"),
    ({"n": 2, "iava": {"explain": True}}, "iava.explain", "one answer"),
]


SERVED = {
    *("messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "n", "user"),
    *("stream", "stream_options", "logprobs", "top_logprobs"),
    *("frequency_penalty", "presence_penalty", "response_format"),
}
"""Parameters of the official client that the server knows; WRONG has their wrong values."""


def test_every_other_parameter_of_the_client_is_refused_by_its_name(served):
    client = served.client()
    known = set(inspect.signature(client.chat.completions.create).parameters)
    others = known - SERVED - {"extra_headers", "extra_query", "extra_body", "timeout"}
    assert {"tools", "logit_bias", "reasoning_effort", "store"} <= others
    for name in sorted(others):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(served, user(QUESTION, tiny.image()), **{name: "auto"})
        assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(("changed", "param", "words"), WRONG, ids=[str(one[0])[:40] for one in WRONG])
def test_an_unsupported_field_or_value_is_refused_by_its_name(served, changed, param, words):
    body = {"messages": [user(QUESTION, tiny.image())], **changed}
    with pytest.raises(openai.BadRequestError) as refused:
        served.client().chat.completions.create(model="tiny", messages=body.pop("messages"), extra_body=body)
    error = refused.value.body
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]


def test_an_unknown_model_is_not_found(served):
    with pytest.raises(openai.NotFoundError, match="use 'tiny'"):
        served.client().chat.completions.create(model="gpt", messages=[user(QUESTION, tiny.image())])


def test_neutral_values_are_accepted(served):
    neutral = {"frequency_penalty": 0, "presence_penalty": 0.0, "response_format": {"type": "text"}, "stop": None}
    found = ask(served, user(QUESTION, tiny.image()), max_tokens=1, user="ann", **neutral)
    assert found.usage.completion_tokens == 1


def test_models_are_listed(served):
    (card,) = served.client().models.list().data
    assert card.id == "tiny"
    assert card.object == "model"


def test_an_image_in_another_format_is_the_same_image(served):
    file = io.BytesIO()
    tiny.image().save(file, "BMP")
    uri = "data:image/bmp;base64," + base64.b64encode(file.getvalue()).decode()
    parts = [{"type": "image_url", "image_url": {"url": uri, "detail": "auto"}}, {"type": "text", "text": QUESTION}]
    found = ask(served, {"role": "user", "content": parts}, max_tokens=3)
    same = ask(served, user(QUESTION, tiny.image()), max_tokens=3)
    assert found.choices[0].message.content == same.choices[0].message.content

"""The parts of a stream together are the text of all tokens."""

import random

import pytest
from transformers import AutoTokenizer

from iava.serve.batching.tokens import TextStream


@pytest.fixture(scope="module")
def tokenizer(request):
    from importlib import resources

    return AutoTokenizer.from_pretrained(str(resources.files("iava.pocket") / "weights"))


def streamed(decode, ids, stop=()):
    """The part after each token and after the end, and whether a stop string was found."""
    stream = TextStream(decode, stop)
    parts = [stream.push(token) for token in ids]
    parts.append(stream.end())
    assert stream.text == "".join(parts)
    return parts, stream.stopped


TEXTS = [
    "A kitchen with a pizza, a banana, a fork and a cup.",
    "  white space   inside and around \n ",
    "naïve café — “quotes”, 日本語 and 🙂🙃 emoji",
    "\n\n",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_parts_are_the_whole_text(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    parts, _ = streamed(lambda ids: tokenizer.decode(ids, skip_special_tokens=True), ids)
    assert "".join(parts) == tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_the_parts_of_random_tokens_are_the_whole_text(tokenizer):
    rng = random.Random(0)
    for _ in range(300):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(1, 40))]
        parts, _ = streamed(lambda ids: tokenizer.decode(ids, skip_special_tokens=True), ids)
        # Invalid bytes become replacement characters, but not always equally many.
        expected = tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert "".join(parts).replace("\ufffd", "") == expected.replace("\ufffd", "")


def of_letters(text):
    """A tokenizer whose tokens are letters."""
    return (lambda ids: "".join(map(chr, ids))), list(map(ord, text))


@pytest.mark.parametrize(
    ("text", "stop", "expected", "stopped"),
    [
        ("one two three", ["two"], "one", True),
        ("one two three", ["three", "two"], "one", True),
        ("one two three", ["tw", "two"], "one", True),
        ("aab", ["ab"], "a", True),
        ("aaab", ["aab"], "a", True),
        ("one twice", ["two"], "one twice", False),
        ("one tw", ["two"], "one tw", False),
        ("line\nnext", ["\n"], "line", True),
        ("stop", ["stop"], "", True),
    ],
)
def test_a_stop_string_is_cut_off(text, stop, expected, stopped):
    decode, ids = of_letters(text)
    parts, was_stopped = streamed(decode, ids, stop)
    assert "".join(parts) == expected
    assert was_stopped is stopped


def test_parts_are_sent_as_soon_as_they_are_final():
    decode, ids = of_letters("one two. ")
    assert streamed(decode, ids, ["wo!"])[0] == ["o", "n", "e", "", " t", "", "", "wo.", "", ""]


def test_an_incomplete_character_is_held_back():
    data = "é🙂".encode()
    parts, _ = streamed(lambda ids: bytes(ids).decode(errors="replace"), list(data))
    assert parts == ["", "é", "", "", "", "🙂", ""]

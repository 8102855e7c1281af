"""The folder in hub/, as `generate` takes it by its path, and beside a model's weights."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, TextStreamer, dynamic_module_utils

import iava
from iava.errors import IavaError
from tests import families, naive, tiny

HUB = Path(__file__).parent.parent.parent / "hub"
PICTURE = tiny.image(2)
QUESTION = "Is there a dog ?"
# What stop strings are matched against: each token behind this word.
PREFIX = "abcdef"


@pytest.fixture(autouse=True)
def _modules(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture
def setup():
    model, proc = tiny.model(4), tiny.processor()
    # Special tokens are never said: nothing ends an answer but what a test asks for.
    with torch.no_grad():
        model.lm_head.weight[:5] = 0
    return model, proc, tiny.inputs(proc, PICTURE, QUESTION)


def beside(folder, model, processor):
    """The model and its processor, loaded from a folder that holds the method as well."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    shutil.copytree(HUB / "custom_generate", folder / "custom_generate")
    loaded = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    return loaded, AutoProcessor.from_pretrained(folder, backend="pil")


def by_path(**options):
    return {"custom_generate": str(HUB), "trust_remote_code": True, "max_new_tokens": 5, **options}


def test_the_folder_brings_the_method(setup):
    model, proc, inputs = setup
    settings = {"top_i": 3, "lam": -0.5}
    expected = model.generate(**inputs, custom_generate=iava.IAVA(proc, **settings), max_new_tokens=5)
    assert torch.equal(model.generate(**inputs, **by_path(processor=proc), **settings), expected)
    # Some callers name the processor so.
    assert torch.equal(model.generate(**inputs, **by_path(tokenizer=proc), **settings), expected)
    vcd = model.generate(**inputs, custom_generate=iava.VCD(alpha=2.0, seed=1), max_new_tokens=5)
    assert torch.equal(model.generate(**inputs, **by_path(method="vcd", alpha=2.0, seed=1)), vcd)


def test_it_streams_and_stops(setup, capsys):
    model, proc, inputs = setup
    tokens = naive.Branches(model, proc, PICTURE, QUESTION).decode(6, end=-1)
    proc.tokenizer.add_tokens([PREFIX])
    model.generate(
        **inputs,
        **by_path(processor=proc, max_new_tokens=6),
        negative="zeros",
        streamer=TextStreamer(proc.tokenizer, skip_prompt=True),
        stop_strings=[proc.decode([tokens[2]])],
    )
    stopped = tokens[: tokens.index(tokens[2]) + 1]
    assert capsys.readouterr().out.split() == proc.decode(stopped).split()


def test_refusals(setup):
    model, proc, inputs = setup
    for given in ({}, {"tokenizer": proc.tokenizer}):
        with pytest.raises(IavaError, match="needs the model's processor"):
            model.generate(**inputs, **by_path(**given))
    with pytest.raises(IavaError, match="unknown method 'vodoo'"):
        model.generate(**inputs, **by_path(processor=proc, method="vodoo"))
    with pytest.raises(IavaError, match="top_i is 0"):
        model.generate(**inputs, **by_path(processor=proc, top_i=0))


@pytest.mark.parametrize("name", ["llava", "instructblip"])
def test_beside_the_weights(name, tmp_path):
    original, processor = families.build(name)
    expected = iava.load(original, processor).ask(PICTURE, QUESTION, max_new_tokens=5, top_i=0.5).tokens
    model, found = beside(tmp_path / "model", original, processor)
    inputs = families.inputs(name, (QUESTION, [PICTURE]))
    for given in ({"processor": processor}, {"tokenizer": processor}, {"tokenizer": found.tokenizer}, {}):
        row = model.generate(**inputs, **given, top_i=0.5, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :].tolist()
        assert (row[: row.index(2)] if 2 in row else row) == expected
    plain = original.generate(**inputs, max_new_tokens=5)
    assert torch.equal(model.generate(**inputs, method="greedy", max_new_tokens=5), plain)


def test_a_call_may_bring_another_method(setup, tmp_path):
    model, proc, inputs = setup
    loaded, _ = beside(tmp_path / "model", model, proc)
    expected = model.generate(**inputs, custom_generate=iava.M3ID(), max_new_tokens=5)
    assert torch.equal(loaded.generate(**inputs, custom_generate=iava.M3ID(), max_new_tokens=5), expected)
    lvlm = iava.load(tmp_path / "model", trust_remote_code=True)
    plain = iava.load(model, proc)
    for method in ("greedy", "iava"):
        found = lvlm.ask(PICTURE, QUESTION, method=method, max_new_tokens=5)
        assert found.tokens == plain.ask(PICTURE, QUESTION, method=method, max_new_tokens=5).tokens

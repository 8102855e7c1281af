"""An exported folder decodes with its method in every program that loads it with transformers."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from iava.lvlm.loading import load
from tests import tiny
from tests.commands import refused, run
from tests.serve.serving import free_port, user

QUESTION = "Is there a dog ?"
SETTINGS = {"alpha": 2.5, "top_i": 0.5}
OPTIONS = ["--alpha", 2.5, "--top-i", 0.5]


@pytest.fixture(scope="module")
def exported(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    result = run("export", tiny_folder, folder, "--method", "iava", *OPTIONS)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def expected(tiny_folder):
    lvlm = load(tiny_folder)
    answers = [
        lvlm.ask(tiny.image(), QUESTION, method=method, max_new_tokens=9, **settings)
        for method, settings in (("iava", SETTINGS), ("greedy", {}), ("vcd", {}))
    ]
    # Otherwise the tests below could not tell the methods apart.
    assert len({tuple(answer.tokens) for answer in answers}) == 3
    return dict(zip(("iava", "greedy", "vcd"), answers, strict=True))


def generated(model, processor, **options):
    inputs = tiny.inputs(processor, tiny.image(), QUESTION)
    tokens = model.generate(**inputs, max_new_tokens=9, do_sample=False, **options)
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


def test_from_pretrained_decodes_with_the_method(exported, expected):
    model = AutoModelForImageTextToText.from_pretrained(exported, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(exported)
    assert generated(model, processor) == expected["iava"].tokens
    # Arguments of a call replace the exported method.
    assert generated(model, processor, method="vcd", alpha=1.0) == expected["vcd"].tokens
    assert generated(model, processor, method="greedy") == expected["greedy"].tokens


def test_without_trust_it_is_the_plain_model(exported, expected):
    model = AutoModelForImageTextToText.from_pretrained(exported)
    assert generated(model, AutoProcessor.from_pretrained(exported)) == expected["greedy"].tokens


def test_a_pipeline_decodes_with_the_method(exported, expected):
    answer = pipeline("image-text-to-text", model=str(exported), trust_remote_code=True)
    parts = [{"type": "image", "image": tiny.image()}, {"type": "text", "text": QUESTION}]
    (found,) = answer(
        text=[{"role": "user", "content": parts}], max_new_tokens=9, do_sample=False, return_full_text=False
    )
    assert found["generated_text"].strip() == expected["iava"].text


def test_weights_are_linked_or_copied(tiny_folder, exported, tmp_path):
    assert (exported / "model.safetensors").is_symlink()
    result = run("export", tiny_folder, tmp_path / "copied", "--method", "vcd", "--copy")
    assert result.exit_code == 0, result.output
    assert not any(path.is_symlink() for path in (tmp_path / "copied").rglob("*"))
    original = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    copied = AutoModelForImageTextToText.from_pretrained(tmp_path / "copied")
    for name, weight in original.state_dict().items():
        assert torch.equal(weight, copied.state_dict()[name])


def test_an_exported_folder_can_be_exported_again(exported, expected, tmp_path):
    result = run("export", exported, tmp_path / "again", "--method", "vcd")
    assert result.exit_code == 0, result.output
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert generated(model, AutoProcessor.from_pretrained(exported)) == expected["vcd"].tokens


def test_an_export_that_is_not_possible_is_refused_in_one_line(tiny_folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    assert "is not empty" in refused("export", tiny_folder, tmp_path / "full")
    assert "no config.json" in refused("export", tmp_path / "empty", tmp_path / "out")
    assert "unknown method" in refused("export", tiny_folder, tmp_path / "out", "--method", "beam")
    assert "alpha is -1" in refused("export", tiny_folder, tmp_path / "out", "--alpha", -1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_transformers_serve_decodes_with_the_method(exported, expected):
    port = free_port()
    command = [shutil.which("transformers", path=str(Path(sys.executable).parent)), "serve", str(exported)]
    command += ["--port", str(port), "--trust-remote-code", "--device", "cpu", "--dtype", "float32"]
    server = subprocess.Popen(command, env={**os.environ, "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_OFFLINE": "1"})
    try:
        until_it_answers(server, f"http://127.0.0.1:{port}/health")
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        for stream in (False, True):
            found = client.chat.completions.create(
                model=str(exported), messages=[user(QUESTION, tiny.image())], max_tokens=9, temperature=0, stream=stream
            )
            if stream:
                text = "".join(chunk.choices[0].delta.content or "" for chunk in found)
            else:
                text = found.choices[0].message.content
            assert text.strip() == expected["iava"].text
    finally:
        server.terminate()
        server.wait(60)


def until_it_answers(server, url):
    for _ in range(600):
        assert server.poll() is None
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("no answer for two minutes")

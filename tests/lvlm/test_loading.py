"""Loading: every way of naming a model, every way of placing it, and one line for whatever is wrong."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, BitsAndBytesConfig

import iava
from iava import IAVA
from iava.errors import IavaError
from iava.lvlm.checkpoint import CONVERTED
from iava.pocket.scenes import load_scene
from tests import families, naive, tiny

PICTURE = tiny.image(2)
QUESTION = "Is there a dog ?"
WEIGHTS = "model.safetensors"
LINEAR = torch.nn.Linear(2, 2)


def write(folder, model=None, processor=None):
    """A folder as `save_pretrained` leaves it."""
    (model or tiny.model(4)).save_pretrained(folder)
    (processor or tiny.processor()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "model")


def edited(folder, change, name="config.json"):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def refused(model, **options) -> str:
    with pytest.raises(IavaError) as caught:
        iava.load(model, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def plain(model, processor, question=QUESTION, steps=5) -> list[int]:
    """Greedy tokens by `generate` alone."""
    inputs = naive.prompt_inputs(processor, PICTURE, question)
    row = model.generate(**inputs, max_new_tokens=steps, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    return row[: row.index(2)] if 2 in row else row


def test_a_folder(folder):
    expected = plain(tiny.model(4), tiny.processor())
    loaded = iava.load(folder, device="cpu")
    assert loaded.model.dtype == torch.float32
    assert loaded.ask(PICTURE, QUESTION, method="greedy", max_new_tokens=5).tokens == expected
    half = iava.load(str(folder), device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half.ask(PICTURE, QUESTION, max_new_tokens=2).logits.dtype == torch.float32
    assert iava.load(folder, attn_implementation="eager").model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["folder", "not a model id!", "nobody/no-such-model"])
def test_what_is_no_model(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = str(tmp_path) if name == "folder" else name
    assert refused(name).startswith(f"unknown model {name!r}: use 'pocket', a folder with a model, or")


def test_names_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "file").write_text("{}")
    for name in (loop, tmp_path / "file", "a" * 5000, "a\0b", "\ud800"):
        message = refused(name)
        assert message.startswith("unknown model")
        message.encode()


def test_options_that_do_not_go(folder):
    assert refused(folder, quantization="3bit") == (
        'quantization is \'3bit\': it must be "4bit", "8bit" or a quantization config'
    )
    assert 'it must be "float32"' in refused(folder, dtype="int8")
    assert 'it must be "float32"' in refused(folder, dtype="half a float")
    assert "it must be a device of torch" in refused(folder, device="gpu")
    assert "device and device_map exclude each other" in refused(folder, device="cpu", device_map="auto")
    assert "attn_implementation" in refused(folder, attn_implementation="nope")
    for local in ("pocket", folder):
        said = f"revision is 'main', but {local} is not on the Hub: leave it out"
        assert refused(local, revision="main") == said
    model, processor = tiny.model(), tiny.processor()
    for option in ({"quantization": "4bit"}, {"device_map": "auto"}, {"revision": "main"}):
        with pytest.raises(IavaError, match="belongs to a model given by name, not to an object"):
            iava.load(model, processor, **option)


class TestBrokenCheckpoints:
    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (
                lambda t: [t.pop(key) for key in list(t) if "multi_modal_projector" in key],
                "4 missing weights (model.multi_modal_projector.linear_1.bias, ",
            ),
            (lambda t: t.update({"more.weight": torch.zeros(3)}), "1 unexpected weights (more.weight)"),
            (
                lambda t: t.update({"vision_tower.post_layernorm.weight": torch.zeros(5)}),
                "1 weights of the wrong shape (model.vision_tower.post_layernorm.weight is 5 instead of 16)",
            ),
        ],
    )
    def test_weights_that_do_not_fit(self, folder, change, complaint):
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
        assert complaint in refused(folder)

    def test_buffers_that_are_computed_today_may_be_there(self, folder):
        tensors = load_file(folder / WEIGHTS)
        tensors["model.vision_tower.embeddings.position_ids"] = torch.arange(10)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
        iava.load(folder)

    @pytest.mark.parametrize("content", ["{", "[]", "\xff"])
    def test_a_broken_generation_config(self, folder, content):
        (folder / "generation_config.json").write_bytes(content.encode("latin-1"))
        assert refused(folder).startswith("generation_config.json of ")

    def test_the_reason_is_said_where_the_first_line_only_announces_it(self, folder):
        edited(folder, lambda config: config["text_config"].update(hidden_size="abc"))
        assert "for field 'hidden_size': TypeError: Field 'hidden_size' expected int, got str" in refused(folder)

    @pytest.mark.parametrize("size", [0, 5, 10_000])
    def test_weights_that_are_cut_off(self, folder, size):
        with (folder / WEIGHTS).open("r+b") as file:
            file.truncate(size)
        assert "cannot be loaded (" in refused(folder)

    def test_weights_that_are_noise(self, folder):
        (folder / WEIGHTS).write_bytes(os.urandom(5000))
        assert "cannot be loaded (" in refused(folder)

    def test_pickled_code_does_not_run(self, folder, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "it-ran"),)

        (folder / WEIGHTS).unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
        assert "pickled with other things than tensors" in refused(folder)
        assert not (tmp_path / "it-ran").exists()

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "processor_config.json"])
    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
    def test_files_that_hold_something_else(self, folder, name, content):
        (folder / name).write_text(content)
        refused(folder)

    def test_a_missing_processor(self, folder):
        (folder / "processor_config.json").unlink()
        assert "cannot be loaded (Can't load" in refused(folder)

    def test_a_language_model_is_none(self, folder):
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        assert "for this kind of AutoModel" in refused(folder)

    def test_a_chat_template_that_fails(self, folder):
        (folder / "chat_template.jinja").write_text("{% for %}")
        lvlm = iava.load(folder)
        with pytest.raises(IavaError, match="the chat template cannot render this conversation"):
            lvlm.ask(PICTURE, QUESTION)

    @pytest.mark.parametrize("kind", CONVERTED)
    def test_the_authors_own_formats(self, folder, kind):
        edited(folder, lambda config: config.update(model_type=kind))
        assert f"use one that was converted for transformers, such as {CONVERTED[kind]}" in refused(folder)


class TestRemoteCode:
    CODE = "import pathlib; pathlib.Path(__file__).with_name('it-ran').touch()\n"

    @pytest.mark.slow
    def test_it_does_not_run_whatever_is_typed(self, folder):
        (folder / "mine.py").write_text(self.CODE)
        mapped = {"AutoConfig": "mine.C", "AutoModelForImageTextToText": "mine.M", "AutoProcessor": "mine.P"}
        edited(folder, lambda config: config.update(model_type="mine", auto_map=mapped))
        code = f"import iava; iava.load({str(folder)!r})"
        done = subprocess.run([sys.executable, "-c", code], input=b"y\n" * 50, capture_output=True)
        said = done.stderr.decode()
        assert "brings code of its own (model type 'mine'), which is not run" in said
        assert "Do you wish to run" not in said + done.stdout.decode()
        assert not list(folder.rglob("it-ran"))

    def test_a_known_type_loads_without_its_code(self, folder):
        (folder / "mine.py").write_text(self.CODE)
        mapped = {"AutoConfig": "mine.C", "AutoModelForImageTextToText": "mine.M"}
        edited(folder, lambda config: config.update(auto_map=mapped))
        edited(folder, lambda config: config.update(auto_map={"AutoProcessor": "mine.P"}), "processor_config.json")
        assert iava.load(folder).ask(PICTURE, QUESTION, max_new_tokens=1).tokens is not None
        assert not list(folder.rglob("it-ran"))


def changed(processor, **fields):
    """A processor's config as an older version wrote it: without fields, or None."""
    for name, value in fields.items():
        setattr(processor, name, value)
    return processor


class TestOlderCheckpoints:
    @pytest.mark.parametrize("name", ["llava", "llava_next", "vipllava"])
    def test_what_the_processor_must_know_of_the_model(self, name, tmp_path, capsys):
        model, processor = families.build(name)
        write(tmp_path, model, processor)
        edited(
            tmp_path,
            lambda saved: [
                saved.pop(key, None)
                for key in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
            ],
            "processor_config.json",
        )
        capsys.readouterr()
        lvlm = iava.load(tmp_path)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("iava: ")]
        assert len(said) == 3
        assert all(line.startswith(f"iava: the checkpoint {str(tmp_path)!r} does not say ") for line in said)
        for field in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
            assert getattr(lvlm.processor, field) == getattr(processor, field)
        inputs = families.inputs(name, (QUESTION, [PICTURE]))
        expected = model.generate(**inputs, max_new_tokens=3)[0, inputs["input_ids"].shape[1] :].tolist()
        found = lvlm.ask(PICTURE, QUESTION, method="greedy", max_new_tokens=3).tokens
        assert found == (expected[: expected.index(2)] if 2 in expected else expected)

    @pytest.mark.parametrize("name", ["instructblip", "blip-2"])
    def test_q_former_checkpoints_without_image_tokens(self, name, tmp_path, capsys):
        model, processor = families.build(name)
        write(tmp_path, model, processor)
        edited(tmp_path, lambda config: config.update(image_token_index=None, image_token_id=None))
        edited(tmp_path, lambda saved: saved.pop("num_query_tokens"), "processor_config.json")
        capsys.readouterr()
        lvlm = iava.load(tmp_path)
        said = capsys.readouterr().err
        assert "num_query_tokens: taken from the model, 32" in said
        assert "image_token_id: taken from the model, 4" in said
        expected = iava.load(*families.build(name)).ask(PICTURE, QUESTION, max_new_tokens=3)
        assert lvlm.ask(PICTURE, QUESTION, max_new_tokens=3).tokens == expected.tokens

    def test_a_complete_checkpoint_says_nothing(self, folder, capsys):
        capsys.readouterr()
        iava.load(folder)
        assert "iava: " not in capsys.readouterr().err

    def test_the_tokenizers_chat_template_serves_if_it_shows_images(self, folder, capsys):
        template = (folder / "chat_template.jinja").read_text()
        (folder / "chat_template.jinja").unlink()
        assert "has no chat template for images: put the model's into its folder" in refused(folder)
        edited(folder, lambda saved: saved.update(chat_template="{{ messages[0]['role'] }}"), "tokenizer_config.json")
        assert "has no chat template for images" in refused(folder)
        edited(folder, lambda saved: saved.update(chat_template=template), "tokenizer_config.json")
        expected = plain(tiny.model(4), tiny.processor())
        assert iava.load(folder).ask(PICTURE, QUESTION, method="greedy", max_new_tokens=5).tokens == expected


class TestPlacing:
    @pytest.fixture(autouse=True)
    def _packages(self):
        pytest.importorskip("accelerate", reason="device_map needs accelerate")

    @pytest.mark.parametrize(
        "places",
        [
            "auto",
            {"": "disk"},
            {
                "model.vision_tower": "disk",
                "model.multi_modal_projector": "cpu",
                "model.language_model.embed_tokens": "disk",
                "model.language_model.layers": "disk",
                "model.language_model.norm": "cpu",
                "model.language_model.rotary_emb": "cpu",
                "lm_head": "disk",
            },
        ],
    )
    @pytest.mark.parametrize("method", ["greedy", "iava"])
    def test_offloaded_parts_answer_alike(self, folder, places, method):
        expected = iava.load(folder).ask(PICTURE, QUESTION, method=method, max_new_tokens=4)
        lvlm = iava.load(folder, device_map=places)
        found = lvlm.ask(PICTURE, QUESTION, method=method, max_new_tokens=4)
        assert found.tokens == expected.tokens
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)


class TestQuantized:
    @pytest.fixture(autouse=True)
    def _packages(self):
        pytest.importorskip("accelerate", reason="bitsandbytes needs accelerate")
        pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")

    @pytest.mark.parametrize(
        ("quantization", "kind"),
        [
            ("8bit", "Linear8bitLt"),
            ("4bit", "Linear4bit"),
            (BitsAndBytesConfig(load_in_4bit=True), "Linear4bit"),
            ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "Linear8bitLt"),
        ],
    )
    def test_it_answers_as_generate_does_and_so_does_its_own_folder(self, tmp_path, quantization, kind):
        image, question = load_scene("test", 0).render(), "Is there a dog in the image?"
        lvlm = iava.load("pocket", quantization=quantization)
        assert kind in {type(module).__name__ for module in lvlm.model.modules()}
        inputs = lvlm.processor(text=[lvlm.prompt(question)], images=[image], return_tensors="pt")
        expected = lvlm.model.generate(**inputs, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :].tolist()
        expected = expected[: expected.index(lvlm.processor.tokenizer.eos_token_id)]
        assert lvlm.ask(image, question, method="greedy", max_new_tokens=5).tokens == expected
        # A contrast of strength 0 is none.
        assert lvlm.ask(image, question, alpha=0.0, max_new_tokens=5).tokens == expected
        saved = iava.load(write(tmp_path / "quantized", lvlm.model, lvlm.processor))
        assert kind in {type(module).__name__ for module in saved.model.modules()}
        assert saved.ask(image, question, method="greedy", max_new_tokens=5).tokens == expected


def test_a_format_whose_package_is_missing_says_which(folder):
    edited(folder, lambda config: config.update(quantization_config={"quant_method": "gptq", "bits": 4}))
    assert "install" in refused(folder)


class TestObjects:
    def test_a_model_needs_its_processor(self):
        with pytest.raises(IavaError, match=r"load\(model, processor\)"):
            iava.load(tiny.model())

    @pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
    def test_wrapped_models(self, wrap):
        model, processor = tiny.model(4), tiny.processor()
        lvlm = iava.load(wrap(model), processor)
        assert lvlm.model is model
        expected = plain(model, processor)
        assert lvlm.ask(PICTURE, QUESTION, method="greedy", max_new_tokens=5).tokens == expected

    @pytest.mark.parametrize(
        "thing", [torch.nn.Linear(2, 2), 3, object(), torch.nn.DataParallel(torch.nn.Linear(2, 2))]
    )
    def test_other_things_are_named_in_a_few_words(self, thing):
        with pytest.raises(IavaError, match="is no Hugging Face model: give a PreTrainedModel") as caught:
            iava.load(thing, tiny.processor())
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("name", ["llava", "instructblip"])
    def test_adapters(self, name):
        peft = pytest.importorskip("peft", reason="needs peft")
        base, processor = families.FAMILIES[name].build()
        families.spread(base)
        before = iava.load(base, processor).ask(PICTURE, QUESTION, method="greedy", max_new_tokens=4)
        torch.manual_seed(0)
        config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_alpha=64)
        wrapped = peft.get_peft_model(base, config)
        wrapped.train()
        modes = [module.training for module in wrapped.modules()]
        lvlm = iava.load(wrapped, processor)
        answer = lvlm.ask(PICTURE, QUESTION, method="greedy", max_new_tokens=4)
        assert modes == [module.training for module in wrapped.modules()]
        wrapped.eval()
        inputs = families.inputs(name, (QUESTION, [PICTURE]))
        expected = wrapped.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :].tolist()
        assert answer.tokens == (expected[: expected.index(2)] if 2 in expected else expected)
        assert (answer.logits - before.logits).abs().max() > 0.1
        assert lvlm.ask(PICTURE, QUESTION, alpha=0.0, max_new_tokens=4).tokens == answer.tokens
        by_hand = wrapped.generate(**inputs, custom_generate=IAVA(processor, model=base), max_new_tokens=4)
        assert by_hand[0, inputs["input_ids"].shape[1] :].tolist()[:1] == (
            lvlm.ask(PICTURE, QUESTION, max_new_tokens=4).tokens[:1] or [2]
        )

    def test_prompt_learning_is_refused(self):
        peft = pytest.importorskip("peft", reason="needs peft")
        model = peft.get_peft_model(
            tiny.model(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=3)
        )
        with pytest.raises(IavaError, match="the adapter is prompt learning"):
            iava.load(model, tiny.processor())

    def test_the_callers_modes_are_put_back(self):
        model = tiny.model(4)
        expected = iava.load(model, tiny.processor()).ask(PICTURE, QUESTION, max_new_tokens=4).tokens
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.9
        model.model.language_model.config.attention_dropout = 0.9
        for layer in model.model.language_model.layers:
            layer.self_attn.attention_dropout = 0.9
        model.train()
        model.lm_head.eval()
        modes = [module.training for module in model.modules()]
        lvlm = iava.load(model, tiny.processor())
        assert modes == [module.training for module in model.modules()]
        assert lvlm.ask(PICTURE, QUESTION, max_new_tokens=4).tokens == expected
        assert modes == [module.training for module in model.modules()]
        with pytest.raises(IavaError, match="no image at"):
            lvlm.ask("nowhere.png", QUESTION)
        with pytest.raises(IavaError, match="contains '<image>'"):
            lvlm.ask(PICTURE, "<image>")
        assert modes == [module.training for module in model.modules()]


def test_images_are_prepared_alike_with_and_without_torchvision(monkeypatch):
    made, from_pretrained = [], AutoProcessor.from_pretrained
    monkeypatch.setattr(
        AutoProcessor, "from_pretrained", lambda *args, **more: made.append(more) or from_pretrained(*args, **more)
    )
    assert type(iava.load("pocket").processor.image_processor).__name__ == "CLIPImageProcessorPil"
    assert made[0]["backend"] == "pil"

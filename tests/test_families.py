"""Every family through the same claims, against a computation that shares nothing with the package."""

import copy
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from transformers import PreTrainedModel

from iava import IAVA, load, probe
from iava.engine.boundary import check_served
from iava.methods.trace import Trace
from tests import families, naive, tiny
from tests.degraded import blurred_pixels
from tests.families import FAMILIES

pytestmark = [pytest.mark.slow, pytest.mark.families]

GENERAL = "Describe this image."
SETTINGS = {"top_i": 0.4, "lam": -0.5, "alpha": 1.0, "beta": 0.05, "negative": "zeros", "strength": 0.1}
STRENGTH = SETTINGS["strength"]
PICTURES = [tiny.image(1, (40, 32)), tiny.image(2, (60, 25)), tiny.image(3, (31, 64))]
ASKED = [
    ("Is there a dog ?", [PICTURES[0]]),
    ("how many red birds , one or two or three , are there on the street ?", [PICTURES[1]]),
    ("What ?", [PICTURES[2]]),
]
STEPS = 3


@cache
def eager(name: str) -> Any:
    """A copy of a family's model with eager attention."""
    model = copy.deepcopy(families.build(name)[0])
    model.set_attn_implementation("eager")
    return model


class Reference:
    """One prompt of one family: eager attention, the whole sequence run again for each token, no cache."""

    def __init__(self, name: str, question: str, pictures: list, negative: str = "zeros", qformer: str = "own"):
        self.model: Any = eager(name)
        self.inputs = families.inputs(name, (question, pictures))
        general = families.inputs(name, (GENERAL, pictures))
        if "qformer_input_ids" in general and qformer == "query":
            for key in ("qformer_input_ids", "qformer_attention_mask"):
                general[key] = self.inputs[key]
        self.att_query, self.att_general = self.attention(self.inputs), self.attention(general)
        general_row, query_row = (a.mean(dim=(0, 1)).tolist() for a in (self.att_general, self.att_query))
        self.selected = naive.irrelevant(general_row, query_row, SETTINGS["top_i"], SETTINGS["lam"])
        self.image = (self.inputs["input_ids"][0] == self.model.config.image_token_id).nonzero().flatten()
        self.masked = self.image[~torch.tensor(self.selected)].tolist()
        self.name, self.negative = name, negative

    def attention(self, inputs: dict) -> torch.Tensor:
        """(L, heads, N)"""
        with torch.no_grad():
            out = self.model(**inputs, output_attentions=True)
        matrices = out.attentions if "attentions" in out else out.language_model_outputs.attentions
        is_image = inputs["input_ids"][0] == self.model.config.image_token_id
        return torch.stack([matrix[0, :, -1, is_image] for matrix in matrices])

    def logits(self, tokens: list[int], masked: list[int]) -> torch.Tensor:
        """(V,) of the next token, with some columns of the prompt zeroed, taken out, or hidden from what follows."""
        captured: dict = {}

        def at_decoder(change):
            def hook(_module, args, kwargs):
                return args, change(dict(kwargs))

            return decoder(self.model).register_forward_pre_hook(hook, with_kwargs=True)

        def capture(kwargs):
            captured.update(kwargs)
            return kwargs

        changes = {"zeros": self.blank, "hide": self.hide, "drop": capture, "pixels": capture, "blur": capture}
        change = changes[self.negative] if masked else capture
        extended = self.extended(tokens)
        if masked and self.negative in ("pixels", "blur"):
            given = extended["pixel_values"]
            others = blurred_pixels(self.name, extended, STRENGTH) if self.negative == "blur" else given * 0
            extended["pixel_values"] = self.replaced(given, others)
        handle = at_decoder(lambda kwargs: change(kwargs) if change is capture else change(kwargs, masked))
        with torch.no_grad():
            logits = self.model(**extended, use_cache=False).logits[0, -1]
        handle.remove()
        if not masked or self.negative != "drop":
            return logits
        length = captured["inputs_embeds"].shape[1]
        rest = [column for column in range(length) if column not in masked]
        positions = captured.get("position_ids")
        positions = torch.tensor([rest]) if positions is None else positions[..., rest]
        short = {
            "inputs_embeds": captured["inputs_embeds"][:, rest],
            "attention_mask": torch.ones(1, len(rest), dtype=torch.long),
        }
        if "token_type_ids" in extended:
            short["token_type_ids"] = extended["token_type_ids"][:, rest]

        def inner(kwargs):
            if kwargs.get("deepstack_visual_embeds", captured.get("deepstack_visual_embeds")) is not None:
                kwargs["visual_pos_masks"] = captured["visual_pos_masks"][:, rest]
                chosen = torch.tensor(self.selected)
                kwargs["deepstack_visual_embeds"] = [f[chosen] for f in captured["deepstack_visual_embeds"]]
            return kwargs

        # These two know inputs_embeds only in their language model.
        alone = self.model.config.model_type in ("instructblip", "blip-2")
        language = self.model.language_model if alone else self.model
        handle = at_decoder(inner)
        with torch.no_grad():
            logits = language(**short, position_ids=positions, use_cache=False).logits[0, -1]
        handle.remove()
        return logits

    def extended(self, tokens: list[int]) -> dict:
        """The prompt's inputs with the answer's first tokens behind them."""
        new = torch.tensor([tokens], dtype=torch.long)
        extended = dict(self.inputs)
        for key, value in {"input_ids": new, "attention_mask": torch.ones_like(new)}.items():
            extended[key] = torch.cat([extended[key], value], dim=1)
        if "token_type_ids" in extended:
            # In PaliGemma what is answered is of type 1; in Gemma 3 all text is of type 0.
            kind = 1 if self.model.config.model_type == "paligemma" else 0
            extended["token_type_ids"] = torch.cat([extended["token_type_ids"], torch.full_like(new, kind)], dim=1)
        if "mm_token_type_ids" in extended:
            extended["mm_token_type_ids"] = torch.cat([extended["mm_token_type_ids"], torch.zeros_like(new)], dim=1)
        return extended

    def blank(self, kwargs: dict, masked: list[int]) -> dict:
        embeddings = kwargs["inputs_embeds"].clone()
        embeddings[0, masked] = 0.0
        if kwargs.get("deepstack_visual_embeds") is not None:
            layers = [layer.clone() for layer in kwargs["deepstack_visual_embeds"]]
            for layer in layers:
                layer[~torch.tensor(self.selected)] = 0.0
            kwargs["deepstack_visual_embeds"] = layers
        return {**kwargs, "inputs_embeds": embeddings}

    def replaced(self, given: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Pixels in which the patches of the tokens that are not selected are those of `others`."""
        pixels, tokens = given.clone(), len(self.selected)
        for token in [token for token, kept in enumerate(self.selected) if not kept]:
            if pixels.dim() == 2:
                patches = len(pixels) // tokens
                rows = slice(patches * token, patches * (token + 1))
                pixels[rows] = others[rows]
                continue
            side = round((tokens / len(pixels)) ** 0.5)
            tile, place = divmod(token, side * side)
            edge = pixels.shape[-1] // side
            top, left = (number * edge for number in divmod(place, side))
            here = (tile, slice(None), slice(top, top + edge), slice(left, left + edge))
            pixels[here] = others[here]
        return pixels

    def hide(self, kwargs: dict, masked: list[int]) -> dict:
        length = kwargs["inputs_embeds"].shape[1]
        lowest = torch.finfo(torch.float32).min
        hidden = torch.zeros(length, length)
        hidden[int(self.image[-1]) + 1 :, masked] = lowest
        mask = kwargs["attention_mask"]
        if isinstance(mask, dict):
            return {**kwargs, "attention_mask": {k: (m + hidden).clamp(min=lowest) for k, m in mask.items()}}
        causal = torch.full((length, length), lowest).triu(1)
        # A decoder that counts its positions in the mask cannot do so in this one.
        positions = torch.arange(length)[None] if kwargs.get("position_ids") is None else kwargs["position_ids"]
        return {**kwargs, "position_ids": positions, "attention_mask": (causal + hidden).clamp(min=lowest)[None, None]}

    def decode(self, steps: int) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < steps and 2 not in tokens:
            full, negative = self.logits(tokens, []), self.logits(tokens, self.masked)
            tokens.append(int(naive.contrasted(full, negative, SETTINGS["alpha"], SETTINGS["beta"]).argmax()))
        return tokens


def decoder(model: Any) -> torch.nn.Module:
    inner = model.get_decoder()
    return inner.get_decoder() if isinstance(inner, PreTrainedModel) and hasattr(inner, "lm_head") else inner


def method(name: str, **settings: Any) -> IAVA:
    model, processor = families.build(name)
    return IAVA(processor, model=model, **{**SETTINGS, **settings})


def new_tokens(name: str, inputs: dict, found: torch.Tensor) -> list[list[int]]:
    rows = found[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]


def answer(name: str, asked: list, made: IAVA, steps: int = STEPS, **options: Any) -> tuple[list[list[int]], Trace]:
    model, _ = families.build(name)
    inputs, trace = families.inputs(name, *asked), Trace()

    def traced(*args, **kwargs):
        return made(*args, trace=trace, **kwargs)

    found = model.generate(**inputs, custom_generate=traced, max_new_tokens=steps, **options)
    return new_tokens(name, inputs, found), trace


@pytest.mark.parametrize("name", FAMILIES)
class TestFamily:
    def test_no_contrast_is_plain_generate(self, name):
        model, _ = families.build(name)
        inputs = families.inputs(name, *ASKED[:2])
        plain = model.generate(**inputs, max_new_tokens=6)
        for negative in ("zeros", "drop"):
            made = method(name, alpha=0, beta=0, negative=negative)
            assert torch.equal(plain, model.generate(**inputs, custom_generate=made, max_new_tokens=6))

    def test_attention_selection_and_tokens_equal_the_naive_method(self, name):
        chosen = []
        for question, pictures in ASKED:
            expected = Reference(name, question, pictures)
            tokens, trace = answer(name, [(question, pictures)], method(name))
            seen = trace.reading
            torch.testing.assert_close(seen["layers_query"][0], expected.att_query.mean(1), atol=1e-5, rtol=0)
            torch.testing.assert_close(seen["layers_general"][0], expected.att_general.mean(1), atol=1e-5, rtol=0)
            assert seen["selected"][0].tolist() == expected.selected
            assert tokens == [expected.decode(STEPS)]
            chosen.append(any(expected.selected))
        assert any(chosen)

    def test_a_batch_equals_the_singles(self, name):
        if FAMILIES[name].sizes:
            counts = {int((families.inputs(name, a)["input_ids"] == token_of(name)).sum()) for a in ASKED}
            assert len(counts) > 1
        together, both = answer(name, ASKED, method(name))
        for row, asked in enumerate(ASKED):
            alone, trace = answer(name, [asked], method(name))
            width = trace.reading["att_query"].shape[1]
            for key in ("att_query", "att_general"):
                torch.testing.assert_close(both.reading[key][row, :width], trace.reading[key][0], atol=1e-5, rtol=0)
            assert both.reading["selected"][row, :width].tolist() == trace.reading["selected"][0].tolist()
            assert not both.reading["selected"][row, width:].any()
            assert alone == [together[row]]

    @pytest.mark.parametrize("negative", ["drop", "hide", "pixels", "blur"])
    def test_negatives_equal_their_references(self, name, negative, record_property):
        made = method(name, negative=negative)
        family = FAMILIES[name]
        if (negative == "hide" and not family.hides) or (negative in ("pixels", "blur") and not family.paints):
            record_property("cell", "refused")
            with pytest.raises(ValueError, match="use 'zeros'"):
                answer(name, ASKED[:1], made)
            return
        together, _ = answer(name, ASKED[:2], made)
        assert together == [Reference(name, *asked, negative=negative).decode(STEPS) for asked in ASKED[:2]]

    def test_what_begins_alike_is_read_once(self, name, record_property):
        model, _ = families.build(name)
        asked = [("Is there a dog ?", PICTURES[:1]), ASKED[1], ("What ?", PICTURES[:1])]
        alone = [answer(name, [one], method(name))[0][0] for one in asked]
        read: list[int] = []

        def count(_module, args, kwargs):
            read.append((args[0] if args else kwargs["hidden_states"]).shape[:2].numel())

        handle = decoder(model).layers[0].register_forward_pre_hook(count, with_kwargs=True)
        together, trace = answer(name, asked, method(name), steps=1)
        handle.remove()
        assert [row[:1] for row in together] == [row[:1] for row in alone]
        assert answer(name, asked, method(name))[0] == alone
        whole = families.inputs(name, *asked)["input_ids"].numel()
        # InstructBLIP's image tokens depend on the question.
        shares = FAMILIES[name].hides and name != "instructblip"
        assert (read[0] < whole) == shares, (read, whole)
        record_property("cell", "yes" if shares else "no")
        for row, one in enumerate(asked):
            expected = answer(name, [one], method(name), steps=1)[1].reading["selected"][0]
            assert trace.reading["selected"][row, : len(expected)].tolist() == expected.tolist()

    def test_two_images_in_one_prompt(self, name):
        if not FAMILIES[name].two_images:
            pytest.skip("its processor takes one image a prompt")
        pair = ("where is the blue boat ?", PICTURES[:2])
        expected = Reference(name, *pair)
        together, trace = answer(name, [ASKED[2], pair], method(name))
        selected = trace.reading["selected"][1, : len(expected.selected)]
        assert selected.tolist() == expected.selected
        assert together[1] == expected.decode(STEPS)

    @pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
    def test_the_model_is_left_as_found(self, name, error):
        model, processor = families.build(name)
        inputs = families.inputs(name, ASKED[0])
        model.generate(**inputs, max_new_tokens=2)
        before, calls = state(model), iter(range(1000))

        def fail(*_args):
            if next(calls) == 4 and error is not None:
                raise error

        handle = decoder(model).layers[-1].register_forward_hook(fail)
        with pytest.raises(error) if error else nullcontext():
            model.generate(**inputs, custom_generate=method(name), max_new_tokens=4)
        handle.remove()
        assert next(calls) >= 5
        assert state(model) == before
        lvlm = load(model, processor)
        if error is None:
            probe(model, **families.inputs(name, ASKED[1]))
            assert state(model) == before
            lvlm.ask(PICTURES[1], "What ?", max_new_tokens=2)
            assert state(model) == before


REFUSED = {
    "mllama": (hf.MllamaConfig, "reads the image by cross-attention"),
    "florence2": (hf.Florence2Config, "is an encoder-decoder"),
    "blip-2 with T5": (lambda: hf.Blip2Config(text_config=hf.T5Config()), "is an encoder-decoder"),
    "qwen3_5": (hf.Qwen3_5Config, "has layers of another kind than attention"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_refused_with_the_reason(kind, record_property):
    build, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=reason) as caught:
        check_served(SimpleNamespace(config=build()))
    record_property("reason", str(caught.value))
    assert "\n" not in str(caught.value)


def test_the_refusal_comes_through_generate_and_probe(monkeypatch):
    model, processor = families.build("llava")
    inputs = families.inputs("llava", ASKED[0])
    monkeypatch.setattr(model.config.text_config, "layer_types", ["full_attention", "linear_attention"], raising=False)
    with pytest.raises(ValueError, match=r"llava has layers of another kind than attention \(linear_attention\)"):
        probe(model, **inputs)
    with pytest.raises(ValueError, match="linear_attention"):
        model.generate(**inputs, custom_generate=IAVA(processor), max_new_tokens=1)


class TestInstructBLIP:
    """What the method needs to know of a family that hands decoding to its language model."""

    def test_without_the_model_it_says_so(self):
        model, processor = families.build("instructblip")
        with pytest.raises(ValueError, match=r"give the method the whole model, IAVA\(\.\.\., model=model\)"):
            model.generate(
                **families.inputs("instructblip", ASKED[0]), custom_generate=IAVA(processor), max_new_tokens=1
            )

    @pytest.mark.parametrize("qformer", ["own", "query"])
    def test_the_qformer_reads_its_own_text_or_the_querys(self, qformer):
        for asked in ASKED[:2]:
            expected = Reference("instructblip", *asked, qformer=qformer)
            tokens, trace = answer("instructblip", [asked], method("instructblip", qformer=qformer))
            seen = trace.reading["layers_general"][0]
            torch.testing.assert_close(seen, expected.att_general.mean(1), atol=1e-5, rtol=0)
            assert tokens == [expected.decode(STEPS)]

    def test_both_differ(self):
        own, query = (Reference("instructblip", *ASKED[0], qformer=kind).att_general for kind in ("own", "query"))
        assert (own - query).abs().max() > 1e-3

    @pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
    def test_beams_and_several_answers(self, options):
        model, _ = families.build("instructblip")
        inputs = families.inputs("instructblip", *ASKED[:2])
        torch.manual_seed(3)
        plain = model.generate(**inputs, max_new_tokens=4, **options)
        torch.manual_seed(3)
        made = method("instructblip", alpha=0, beta=0)
        assert torch.equal(plain, model.generate(**inputs, custom_generate=made, max_new_tokens=4, **options))

    def test_ask_takes_the_published_threshold(self):
        model, processor = families.build("instructblip")
        lvlm = load(model, processor)
        found = lvlm.ask(ASKED[0][1][0], ASKED[0][0], top_i=0.4, max_new_tokens=STEPS, explain=True)
        assert found.settings["lam"] == -0.1
        made = method("instructblip", lam=None, top_i=0.4, beta=0.1, negative="drop")
        tokens, trace = answer("instructblip", ASKED[:1], made)
        assert found.explanation.selected.tolist() == trace.reading["selected"][0].tolist()
        assert found.tokens == [token for token in tokens[0] if token != 2]
        expected = Reference("instructblip", *ASKED[0])
        rows = (a.mean(dim=(0, 1)).tolist() for a in (expected.att_general, expected.att_query))
        assert found.explanation.selected.tolist() == naive.irrelevant(*rows, 0.4, -0.1)


@pytest.mark.parametrize("setting", ["qwen", "", None])
def test_qformer_is_checked(setting):
    with pytest.raises(ValueError, match=r"qformer is .*: it must be one of own, query"):
        IAVA(qformer=setting)


def state(model: Any) -> dict[str, Any]:
    """What could stay behind on a model: hooks, attributes of single modules, attention settings, offsets."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[name] = (
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            "forward" in vars(module),
            module.training,
            getattr(getattr(module, "config", None), "_attn_implementation", None),
            str(getattr(module, "rope_deltas", None)),
        )
    found["generation"] = str(model.generation_config)
    return found


def token_of(name: str) -> int:
    return families.build(name)[0].config.image_token_id

import math
import statistics
from functools import partial

import pytest
import torch

from iava import ONLY
from iava.methods.only import textual
from tests import eager, families
from tests.test_families import ASKED, decoder

SETTINGS = {"layer": 1, "gamma": 0.7, "alpha1": 2.0, "alpha2": 1.5, "beta": 0.05}


def without_outliers(shares: list[float]) -> list[float]:
    if len(shares) < 2:
        return shares
    most = statistics.mean(shares) + statistics.stdev(shares)
    return [0.0 if share > most else share for share in shares]


def entropy(shares: list[float]) -> float:
    total = sum(shares)
    return -sum(share / total * math.log(share / total + 1e-6) for share in shares)


def enhanced(weights: list[list[float]], image: list[int]) -> list[list[float]]:
    """One token's attention, a list for each head, over tokens that may all be seen."""
    text = [column for column in range(len(weights[0])) if column not in image and column != 0]
    ratios, heads = [], []
    for head in weights:
        left = list(head)
        for columns in (text, image):
            for column, share in zip(columns, without_outliers([head[c] for c in columns]), strict=True):
                left[column] = share
        ratios.append(entropy([left[c] for c in text]) / entropy([left[c] for c in image]))
        heads.append(left)
    mean = statistics.mean(ratios)
    return [head if ratio >= mean else [0.0] * len(head) for head, ratio in zip(heads, ratios, strict=True)]


def expected(one: eager.Altered, tokens: list[int], layer=1, gamma=0.7, alpha1=2.0, alpha2=1.5, beta=0.05, norm=None):
    # The authors' code for InstructBLIP carries the output on as it is.
    norm = one.model.config.model_type != "instructblip" if norm is None else norm
    language = decoder(one.model)
    last = language.layers[-1]
    states = {}
    handles = [
        last.register_forward_pre_hook(lambda _module, args: states.update(into=args[0][:, -1])),
        language.norm.register_forward_hook(lambda _module, _args, output: states.update(out=output[:, -1])),
    ]
    full, seen = one.run(tokens, lambda _layer, scores: scores)
    for handle in handles:
        handle.remove()
    weights = torch.tensor(enhanced(seen["weights"][layer][:, -1].tolist(), one.image))
    with torch.no_grad():
        heads = torch.einsum("hk,hkd->hd", weights, seen["values"][layer])
        given = language.layers[layer].self_attn.o_proj(heads.flatten()[None])
        state = 0.2 * states["into"] + (last.input_layernorm(given) if norm else given)
        state = state + last.mlp(last.post_attention_layernorm(state))
        state = language.norm(state) + 0.5 * states["out"]
        model = one.model.language_model if one.model.config.model_type == "instructblip" else one.model
        second = model.lm_head(state)[0]
    distance = sum(abs(p - q) for p, q in zip(full.softmax(-1).tolist(), second.softmax(-1).tolist(), strict=True))
    together = distance < gamma
    agreed.append(together)
    combined = full + alpha1 * second if together else (1 + alpha2) * full - alpha2 * second
    return eager.constrained(full, combined, beta)


agreed: list[bool] = []


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl", "paligemma"])
@pytest.mark.parametrize("gamma", [0.7, 1.9])
def test_logits_equal_a_computation_by_hand(name, gamma):
    model, _ = families.build(name)
    agreed.clear()

    def at_gamma(one, tokens):
        return expected(one, tokens, gamma=gamma)

    assert max(eager.check(name, ONLY(**{**SETTINGS, "gamma": gamma}, model=model), ASKED, at_gamma)) > 1
    if name == "llava":
        assert (True in agreed) == (gamma == 1.9)


@pytest.mark.parametrize(("name", "norm"), [("instructblip", True), ("llava", False)])
def test_the_norm_of_what_skips_can_be_chosen(name, norm):
    model, _ = families.build(name)
    method = ONLY(**SETTINGS, norm=norm, model=model)
    assert max(eager.check(name, method, ASKED, partial(expected, norm=norm))) > 1
    with pytest.raises(ValueError, match="norm is 'yes': it must be true or false"):
        ONLY(norm="yes")


def test_behind_an_image_that_comes_first_all_text_counts():
    """As in InstructBLIP. If its first text token did not count, neither head would have entropy, and both stay."""
    image = torch.tensor([[True, True, True, False, False]])
    even, narrow = [0.2] * 5, [0.2, 0.2, 0.2, 0.0, 0.4]
    found = textual(torch.tensor([[even, narrow]]), image, torch.ones_like(image))
    torch.testing.assert_close(found, torch.tensor([[even, [0.0] * 5]]))


def test_the_model_runs_once():
    model, _ = families.build("llava")
    inputs = families.inputs("llava", ASKED[0])
    read = []
    layer = model.get_decoder().layers[1]
    handle = layer.register_forward_pre_hook(lambda _module, args: read.append(args[0].shape[:2].numel()))
    found = model.generate(**inputs, custom_generate=ONLY(), max_new_tokens=3)
    handle.remove()
    new = found.shape[1] - inputs["input_ids"].shape[1]
    assert read == [inputs["input_ids"].numel()] + [1] * (new - 1)


def test_heads_by_hand():
    # Tokens: first, image, image, image, text, text, and one that may not be seen.
    image = torch.tensor([[False, True, True, True, False, False, False]])
    seen = torch.tensor([[True, True, True, True, True, True, False]])
    even = [0.1, 0.2, 0.2, 0.2, 0.15, 0.15, 0.0]
    # Its text is all on one token: entropy 0, far below the mean.
    narrow = [0.1, 0.2, 0.2, 0.2, 0.0, 0.3, 0.0]
    found = textual(torch.tensor([[even, narrow]]), image, seen)
    torch.testing.assert_close(found, torch.tensor([[even, [0.0] * 7]]))
    # mean 0.2, standard deviation 0.173: of the image the third token is an outlier, in both heads.
    outlier = [0.1, 0.1, 0.1, 0.4, 0.15, 0.15, 0.0]
    found = textual(torch.tensor([[outlier, outlier]]), image, seen)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.1, 0.1, 0.1, 0.0, 0.15, 0.15, 0.0]))


def test_both_ways_of_combining_by_hand():
    full = torch.tensor([[0.6, 0.4], [0.9, 0.1]]).log()
    second = torch.tensor([[0.55, 0.45], [0.2, 0.8]]).log()
    # Distances 0.1 and 1.4.
    found = ONLY(gamma=0.2).combine(full, [second], 0).softmax(-1)
    agree = torch.tensor([0.6 * 0.55**3, 0.4 * 0.45**3])
    differ = torch.tensor([0.9**2 / 0.2, 0.1**2 / 0.8])
    torch.testing.assert_close(found, torch.stack([agree / agree.sum(), differ / differ.sum()]))


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("layer", -1, "a whole number, at least 0"),
        ("gamma", 2.5, "at least 0 and at most 2"),
        ("alpha1", -1, "at least 0"),
        ("alpha2", -1, "at least 0"),
        ("beta", -1, "at least 0 and at most 1"),
    ],
)
def test_bad_settings_get_one_line(setting, value, wanted):
    with pytest.raises(ValueError, match=f"^{setting} is {value}: it must be .*{wanted}$"):
        ONLY(**{setting: value})


def test_the_last_layer_cannot_be_carried():
    model, _ = families.build("llava")
    with pytest.raises(ValueError, match="layer is 2, but the model has 3 layers: use 0 to 1"):
        model.generate(**families.inputs("llava", ASKED[0]), custom_generate=ONLY(layer=2), max_new_tokens=1)

from functools import partial

import pytest
import torch

from iava import PAI
from tests import eager, families, tiny
from tests.test_families import ASKED

SETTINGS = {"alpha": 0.8, "gamma": 1.7, "beta": 0.05, "start": 1}


def expected(
    one: eager.Altered, tokens: list[int], alpha=0.8, gamma=1.7, beta=0.05, start=1, end=99, prefill=True
) -> torch.Tensor:
    def raise_image(layer: int, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        first = one.length - 1 if prefill else one.length
        for row in range(first, scores.shape[1]) if start <= layer < end else []:
            seen = (scores[0, row] > -1e30).tolist()
            columns = [column for column in one.image if seen[column]]
            scores[:, row, columns] += alpha * scores[:, row, columns].abs()
        return scores

    full, _ = one.run(tokens, raise_image)
    return eager.constrained(full, gamma * full - (gamma - 1) * one.text_only(tokens), beta)


# One decoder with a soft cap, one whose window is shorter than its prompt.
@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl", "paligemma", "paligemma2", "gemma3"])
def test_logits_equal_altered_eager_attention(name):
    model, _ = families.build(name)
    assert max(eager.check(name, PAI(**SETTINGS, model=model), ASKED, expected)) > 1


@pytest.mark.parametrize("settings", [{"end": 2}, {"prefill": False}, {"start": 0, "end": 2, "prefill": False}])
@pytest.mark.parametrize("name", ["llava", "instructblip", "gemma3"])
@pytest.mark.slow
def test_an_end_and_an_unraised_prompt_equal_altered_eager_attention(name, settings):
    model, _ = families.build(name)
    method = PAI(**{**SETTINGS, **settings}, model=model)
    assert max(eager.check(name, method, ASKED, partial(expected, **settings))) > 1


def test_each_part_changes_what_is_said():
    model, _ = families.build("llava")
    inputs = families.inputs("llava", ASKED[1])

    def first(**settings):
        method = PAI(**{"alpha": 0, "gamma": 1, "beta": 0, "start": 0, **settings})
        options = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
        return model.generate(**inputs, custom_generate=method, **options).logits[0]

    plain = model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True, output_logits=True).logits[0]
    torch.testing.assert_close(first(), plain)
    raised = first(alpha=1.0)
    assert (raised - plain).abs().max() > 0.1
    assert (raised - first(alpha=1.0, start=2)).abs().max() > 0.1
    assert (raised - first(alpha=1.0, end=2)).abs().max() > 0.1
    torch.testing.assert_close(first(alpha=1.0, prefill=False), plain)
    assert (first(gamma=1.5) - plain).abs().max() > 0.1
    assert first(beta=0.5).isneginf().any()


def test_positions_close_up():
    """Text before the image, between two and after them: as if the images had never been there."""
    seen = []

    class Spy(PAI):
        def branches(self, prompt):
            (branch,) = super().branches(prompt)
            seen.append((branch.positions, branch.mask))
            return [branch]

    model, proc = tiny.model(), tiny.processor()
    texts = ["USER : <image> Is there <image> a dog ?", "USER : <image> What ?"]
    inputs = proc(text=texts, images=[tiny.image()] * 3, padding=True, return_tensors="pt")
    model.generate(**inputs, custom_generate=Spy(), max_new_tokens=1)
    positions, mask = seen[0]
    # 7 and 4 tokens of text.
    assert positions[0, mask[0].bool()].tolist() == list(range(7))
    assert positions[1, mask[1].bool()].tolist() == list(range(4))


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("alpha", -0.1, "at least 0"),
        ("gamma", 0.9, "at least 1"),
        ("beta", 1.1, "at least 0 and at most 1"),
        ("start", -1, "a whole number, at least 0"),
        ("start", 1.0, "a whole number, at least 0"),
        ("end", 2, "a whole number, at least 3"),
    ],
)
def test_bad_settings_get_one_line(setting, value, wanted):
    with pytest.raises(ValueError, match=f"^{setting} is {value}: it must be .*{wanted}$"):
        PAI(**{setting: value})


def test_a_layer_that_is_not_there():
    model, _ = families.build("llava")
    with pytest.raises(ValueError, match="start is 3, but the model has 3 layers: use 0 to 2"):
        model.generate(**families.inputs("llava", ASKED[0]), custom_generate=PAI(start=3), max_new_tokens=1)
    with pytest.raises(ValueError, match="end is 4, but the model has 3 layers: use 3 to 3"):
        model.generate(**families.inputs("llava", ASKED[0]), custom_generate=PAI(end=4), max_new_tokens=1)
    with pytest.raises(ValueError, match="prefill is 1: it must be true or false"):
        PAI(prefill=1)

import pytest
import torch

from iava import SID, load
from iava.methods.sid import least_attended
from tests import eager, families, tiny
from tests.test_families import ASKED

SETTINGS = {"keep": 0.34, "early": 1, "alpha": 1.3, "beta": 0.05}


def kept(one: eager.Altered, row: list[float], keep: float) -> list[int]:
    """The columns of the least attended image tokens."""
    return sorted(one.image, key=lambda column: row[column])[: max(1, round(keep * len(one.image)))]


def expected(one: eager.Altered, tokens: list[int], keep=0.34, early=1, alpha=1.3, beta=0.05) -> torch.Tensor:
    dropped: dict[int, list[int]] = {}

    def select(layer: int, scores: torch.Tensor) -> torch.Tensor:
        if layer == early - 1:
            attention = scores.softmax(-1).mean(0).tolist()
            for row in range(len(attention)):
                # Prompts are read at once, with what their last token selects; then each new token selects.
                chosen = kept(one, attention[max(row, one.length - 1)], keep)
                dropped[row] = [column for column in one.image if column not in chosen]
        if layer < early:
            return scores
        scores, seen = scores.clone(), (scores[0] > -1e30).tolist()
        for row, columns in dropped.items():
            if any(seen[row][k] for k in range(len(seen)) if k not in columns):
                scores[:, row, columns] = -torch.inf
        return scores

    full, _ = one.run(tokens, lambda _layer, scores: scores)
    second, _ = one.run(tokens, select)
    return eager.constrained(full, (1 + alpha) * full - alpha * second, beta)


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl", "paligemma", "paligemma2", "gemma3"])
def test_logits_equal_altered_eager_attention(name):
    model, _ = families.build(name)
    assert max(eager.check(name, SID(**SETTINGS, model=model), ASKED, expected)) > 1


def test_a_later_layer_selects():
    def later(one, tokens):
        return expected(one, tokens, keep=0.1, early=2, alpha=0.5, beta=0.1)

    # The published values; of three layers two may see the whole image.
    eager.check("llava", SID(), ASKED, later)


def test_what_is_selected_is_told():
    lvlm = load(*families.build("llava"))
    found = lvlm.ask(ASKED[1][1][0], ASKED[1][0], method="sid", keep=3, early=2, max_new_tokens=1, explain=True)
    one = eager.Altered("llava", *ASKED[1])
    _, seen = one.run([], lambda _layer, scores: scores)
    row = seen["weights"][1][:, -1].mean(0).tolist()
    chosen = sorted(one.image, key=lambda column: row[column])[:3]
    assert found.explanation.selected.tolist() == [column in chosen for column in one.image]
    assert found.settings == {"keep": 3, "early": 2, "alpha": 0.5, "beta": 0.1}


def test_least_attended_by_hand():
    attention = torch.tensor([[0.3, 0.1, 0.1, 0.2, 0.0], [0.5, 0.1, 0.2, 0.9, 0.9]])
    valid = torch.tensor([[True, True, True, True, False], [True, True, True, True, True]])

    def chosen(keep):
        return [row.nonzero().flatten().tolist() for row in least_attended(attention, valid, keep)]

    assert chosen(1) == [[1], [1]]
    assert chosen(2) == [[1, 2], [1, 2]]
    assert chosen(0.75) == [[1, 2, 3], [0, 1, 2, 3]]
    assert chosen(0.01) == [[1], [1]]
    assert chosen(9) == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]


def test_published_layers():
    model, proc = tiny.model(layers=7), tiny.processor()
    assert SID().settings()["early"] is None
    assert SID().bind(model, proc).settings()["early"] == 3
    assert SID(early=6).bind(model, proc).early == 6
    model.config.model_type = "instructblip"
    assert SID().bind(model, proc).early == 5
    assert SID().bind(*families.build("llava")).early == 2
    with pytest.raises(ValueError, match="early is 7, but the model has 7 layers: use 1 to 6"):
        SID(early=7).bind(model, proc)


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("keep", 0, "a whole number, at least 1"),
        ("keep", 1.5, "above 0 and at most 1"),
        ("keep", 0.0, "above 0 and at most 1"),
        ("early", 0, "a whole number, at least 1"),
        ("alpha", -1, "at least 0"),
        ("beta", 2, "at least 0 and at most 1"),
    ],
)
def test_bad_settings_get_one_line(setting, value, wanted):
    with pytest.raises(ValueError, match=f"^{setting} is {value}: it must be .*{wanted}$"):
        SID(**{setting: value})

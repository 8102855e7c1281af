import pytest
import torch

from iava.engine import hf
from iava.engine.boundary import capture, run
from iava.engine.branch import Branch
from iava.engine.negatives import zeros
from iava.engine.prompt import Prompt, image_mask, pack
from tests import tiny
from tests.engine.test_edit import read


def test_what_was_captured_gives_the_same_logits_again():
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "Is there a dog ?", "What ?")
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        first = model(**inputs, position_ids=positions, logits_to_keep=1).logits[:, -1]
        again = run(model, read(model, inputs).main, hf.new_cache(model)).logits[:, -1]
    assert torch.equal(first, again)


def test_the_decoder_can_be_left_out():
    model, proc = tiny.model(), tiny.processor()
    ran = []
    handle = model.get_decoder().layers[0].register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad(), capture(model, stop=True) as captured:
        model(**tiny.inputs(proc, tiny.image(), "What ?"))
    handle.remove()
    assert not ran
    assert captured["inputs_embeds"].shape == (1, 15, 32)


def test_everything_captured_reaches_the_decoder_again():
    """Also what the outer model would not pass on by itself, such as visual features for single layers."""
    model, proc = tiny.model(), tiny.processor()
    main = read(model, tiny.inputs(proc, tiny.image(), "What ?")).main
    fed = {}

    def spy(_module, args, kwargs):
        fed.update(kwargs)
        kwargs.pop("extra", None)
        return args, kwargs

    branch = Branch(main.embeddings, main.positions, main.mask, main.is_image, others={"extra": "kept"})
    cache = hf.new_cache(model)
    with torch.no_grad():
        handle = model.get_decoder().layers[0].register_forward_pre_hook(spy, with_kwargs=True)
        run(model, branch, cache)
        handle.remove()
    assert fed["extra"] == "kept"
    assert cache.get_seq_length() == main.embeddings.shape[1]


def test_no_hook_stays_behind_an_error():
    model, proc = tiny.model(), tiny.processor()
    main = read(model, tiny.inputs(proc, tiny.image(), "What ?")).main
    with pytest.raises(ZeroDivisionError), capture(model):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError):
        run(model, Branch(main.embeddings[..., :3], main.positions, main.mask, main.is_image))
    assert not model.get_decoder()._forward_pre_hooks


def test_pack():
    index, valid = pack(torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0]]).bool())
    assert valid.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert [row[ok].tolist() for row, ok in zip(index, valid, strict=True)] == [[1, 3], [0], [0, 1, 2]]


def test_image_mask_refuses_prompts_without_any_image():
    model = tiny.model()
    found = image_mask(model, torch.tensor([[5, 4, 4, 6], [5, 5, 5, 6]]))
    assert found.tolist() == [[False, True, True, False], [False] * 4]
    with pytest.raises(ValueError, match="none of the prompts has image tokens"):
        image_mask(model, torch.tensor([[5, 6], [5, 6]]))


def test_zeros_blanks_exactly_the_other_image_tokens():
    model, ids = tiny.model(), torch.tensor([[4, 4, 5, 5], [5, 4, 4, 4]])
    main = Branch(torch.ones(2, 4, 3), torch.arange(4).expand(2, 4), torch.ones_like(ids), ids == 4, others={"x": 1})
    prompt = Prompt(model, model, ids, main, None, hf.new_cache(model))
    branch = zeros(prompt, torch.tensor([[True, False, False], [False, False, True]]))
    assert branch.embeddings[..., 0].tolist() == [[1, 0, 1, 1], [1, 0, 0, 1]]
    assert branch.others == {"x": 1}
    assert main.embeddings.min() == 1

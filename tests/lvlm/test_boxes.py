"""A token's rectangle is where its features come from: tried by painting."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from iava.lvlm.boxes import patch_boxes, token_boxes
from tests import families
from tests.families import FAMILIES

KNOWN = [name for name in FAMILIES if name not in ("instructblip", "blip-2")]


def features(model, name: str, picture: Image.Image) -> torch.Tensor:
    """(N, D) what the decoder is fed for the picture."""
    inputs = families.inputs(name, ("What ?", [picture]))
    captured = {}

    def hook(_module, _args, kwargs):
        captured.update(kwargs)

    handle = model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return captured["inputs_embeds"][0, inputs["input_ids"][0] == model.config.image_token_id]


@pytest.fixture(scope="module", params=KNOWN)
def local(request):
    """A model whose vision tower lets no patch see another."""
    model = copy.deepcopy(families.build(request.param)[0])
    silenced = 0
    for name, weight in model.named_parameters():
        mixes = any(part in name for part in ("out_proj", "attn.proj", "projection_layer"))
        if mixes and ("vision" in name or "visual" in name):
            torch.nn.init.zeros_(weight)
            silenced += 1
    assert silenced
    return request.param, model


@pytest.mark.parametrize("size", [(96, 48), (50, 70)])
def test_only_tokens_that_touch_a_spot_see_it(local, size):
    name, model = local
    _, processor = families.build(name)
    black = Image.new("RGB", size)
    before = features(model, name, black)
    boxes = token_boxes(model, processor, black, len(before))
    assert boxes is not None
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    assert (areas > 0).sum() >= 4
    rng = np.random.default_rng(0)
    for n in rng.permutation(np.flatnonzero(areas > 0))[:8]:
        x0, y0, x1, y1 = boxes[n]
        spot = [
            round(x0 * 0.7 + x1 * 0.3),
            round(y0 * 0.7 + y1 * 0.3),
            round(x0 * 0.3 + x1 * 0.7),
            round(y0 * 0.3 + y1 * 0.7),
        ]
        spot[2:] = max(spot[2], spot[0] + 1), max(spot[3], spot[1] + 1)
        picture = black.copy()
        picture.paste((255, 255, 255), tuple(spot))
        change = (features(model, name, picture) - before).norm(dim=1)
        assert change[n] > 1e-3
        apart = (boxes[:, 0] > spot[2]) | (boxes[:, 2] < spot[0]) | (boxes[:, 1] > spot[3]) | (boxes[:, 3] < spot[1])
        assert apart.any()
        # Resizing spreads a spot a little.
        assert change[torch.tensor(apart)].max() < 0.25 * change[n]
        if name not in ("llava", "vipllava"):
            # What is cropped away is no token's.
            assert boxes[:, :2].min() == 0
            assert (boxes[:, 2:].max(axis=0) == size).all()


def test_patch_boxes_worked_by_hand():
    # 200 x 100 is resized to 40 x 20, of which the middle 20 x 20 is cut into 2 x 2 patches.
    boxes = patch_boxes((200, 100), resized=(40, 20), crop=(20, 20), patch=10)
    expected = [[50, 0, 100, 50], [100, 0, 150, 50], [50, 50, 100, 100], [100, 50, 150, 100]]
    np.testing.assert_allclose(boxes, expected)
    # A crop larger than the picture: the outer halves of the outer patches are padding.
    boxes = patch_boxes((10, 10), resized=(10, 10), crop=(20, 10), patch=10)
    np.testing.assert_allclose(boxes, [[0, 0, 5, 10], [5, 0, 10, 10]])
    # 7 pixels hold two patches of 3; the last pixel is seen by none.
    boxes = patch_boxes((14, 7), resized=(14, 7), crop=(14, 7), patch=3)
    assert boxes.shape == (8, 4)
    np.testing.assert_allclose(boxes[[0, 3, 7]], [[0, 0, 3, 3], [9, 0, 12, 3], [9, 3, 12, 6]])

"""The training of the pocket model: labels, packing, masking, and continuation after a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from iava.pocket.scenes import load_scene
from iava.pocket.text import PREFIX, SUFFIX, build_tokenizer, exchanges
from tools.pocket import train_language, train_vision
from tools.pocket.packs import Packer, random_patch_mask, visible_objects
from tools.pocket.train import save
from tools.pocket.train_language import build_model, logits_and_attention
from tools.pocket.train_vision import (
    GRID,
    PATCH,
    SIDE,
    VisionTrainer,
    normalised,
    patch_labels,
    render_with_labels,
    train_vision_tower,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vision() -> VisionTrainer:
    torch.manual_seed(0)
    return VisionTrainer().eval()


def test_patch_labels_by_hand() -> None:
    maps = torch.zeros(1, SIDE, SIDE, 2, dtype=torch.uint8)
    maps[0, :PATCH, :PATCH, 0] = 5  # the first patch is object 5 with colour 2
    maps[0, :PATCH, :PATCH, 1] = 2
    maps[0, :PATCH, PATCH : PATCH + 2, 0] = 7  # a quarter of the second is object 7: ignored
    maps[0, :PATCH, 2 * PATCH : 2 * PATCH + 1, 0] = 7  # an eighth of the third is object 7: background
    maps[0, :PATCH, 3 * PATCH : 3 * PATCH + 5, 0] = 7  # most of the fourth is object 7, the rest 5, without colour
    maps[0, :PATCH, 3 * PATCH + 5 : 4 * PATCH, 0] = 5
    objects, colours = patch_labels(maps)
    assert objects[0, :5].tolist() == [5, -100, 0, 7, 0]
    assert colours[0, :5].tolist() == [2, -100, -100, -100, -100]
    assert objects.shape == (1, GRID * GRID)


def test_muon_step_is_an_orthogonal_matrix() -> None:
    torch.manual_seed(0)
    for shape in [(3, 16, 48), (2, 48, 16)]:
        values = torch.linalg.svdvals(train_vision._orthogonal(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_packed_questions_are_answered_as_if_asked_alone(vision: VisionTrainer, tmp_path: Path) -> None:
    """Block mask, positions and cached features against the forward pass of the saved model."""
    torch.manual_seed(1)
    tokenizer = build_tokenizer()
    packer, model = Packer(tokenizer), build_model(tokenizer, vision).eval()
    save(model, tokenizer, tmp_path)
    alone = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)

    scenes = [load_scene("train", i) for i in range(2)]
    questions = [exchanges(s, s.names, set(), np.random.default_rng(s.index), misleading=True) for s in scenes]
    patches = torch.arange(GRID * GRID).expand(2, -1)
    pack = packer.pack(questions, patches, torch.ones_like(patches, dtype=torch.bool))
    images = np.stack([render_with_labels(scene)[0] for scene in scenes])
    with torch.no_grad():
        features = vision.features(normalised(images))
        packed, _ = logits_and_attention(model, features, pack, CPU)
        for asked in pack.questions:
            row, last, exchange = asked.row, asked.last, asked.exchange
            pixels = normalised(images[row : row + 1])
            text = PREFIX.replace("<image>", "<image>" * GRID * GRID) + exchange.question + SUFFIX
            ids = processor.tokenizer(text, return_tensors="pt")
            single = alone(**ids, pixel_values=pixels).logits[0, -1]
            torch.testing.assert_close(packed[row, last], single, atol=2e-4, rtol=1e-4)
            target = tokenizer.encode(" " + exchange.answer, add_special_tokens=False)[0]
            assert pack.targets[row, last] == target
            if exchange.kind in ("existence", "position"):
                assert [tokenizer.decode(pack.ids[row, noun]).strip() for noun in asked.nouns] == list(exchange.objects)
            if exchange.kind == "position":
                assert tokenizer.decode(pack.ids[row, asked.side]).strip() in ("left", "right")


def test_the_processor_scales_as_training_does(vision: VisionTrainer, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    save(build_model(tokenizer, vision), tokenizer, tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    scene = load_scene("test", 0)
    pixels = processor(text=[PREFIX + "?"], images=[scene.render()], return_tensors="pt")["pixel_values"]
    step = 1 / 255 / 0.25
    assert (pixels - normalised(render_with_labels(scene)[0][None])).abs().max() < 1.01 * step


def test_masking_hides_objects() -> None:
    scene = load_scene("train", 0)
    labels = patch_labels(torch.from_numpy(render_with_labels(scene)[1][None]))[0][0].numpy()
    everything, nothing = np.ones(GRID * GRID, dtype=bool), np.zeros(GRID * GRID, dtype=bool)
    assert visible_objects(scene, labels, everything)[0] == scene.names
    assert visible_objects(scene, labels, nothing) == (set(), set())
    shares = [random_patch_mask(np.random.default_rng(seed)).mean() for seed in range(300)]
    assert 0.5 < np.mean(np.array(shares) == 1) < 0.8
    assert min(shares) < 0.2


@pytest.mark.slow
def test_a_killed_training_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_vision, "patch_accuracy", lambda *_: 0.0)
    monkeypatch.setattr(train_language, "examine", lambda *_: {})
    monkeypatch.setattr(train_language, "PROGRESS_SCENES", 2)
    monkeypatch.setattr(train_language, "ALIGN_STEPS", 3)

    def run(folder: Path) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        vision = train_vision_tower(folder, images=12, steps=4, batch=2, seed=3, device=CPU, every=2)
        model, _ = train_language.train_language_model(
            vision, folder, scenes=12, steps=(2, 2), batch=2, seed=3, device=CPU, every=1
        )
        return model.state_dict()

    whole = run(tmp_path / "whole")

    real_augmented, real_pack, calls = train_vision.augmented, train_language.training_pack, []

    def killed(real):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            calls.append(real)
            if calls.count(real) == 4:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(train_vision, "augmented", killed(real_augmented))
    monkeypatch.setattr(train_language, "training_pack", killed(real_pack))
    folder = tmp_path / "killed"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    assert run(folder).keys() == whole.keys()
    for name, value in run(folder).items():
        torch.testing.assert_close(value, whole[name], atol=1e-6, rtol=1e-5)

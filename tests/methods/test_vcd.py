import math
import zlib

import pytest
import torch

import iava
from iava import VCD
from iava.errors import IavaError
from iava.methods.vcd import diffused, signal
from tests import families, naive, tiny, twobranch

PICTURES = [tiny.image(1, (40, 32)), tiny.image(2, (60, 25)), tiny.image(3, (31, 64))]
ASKED = [
    ("Is there a dog ?", PICTURES[:1]),
    ("how many red birds , one or two or three , are there on the street ?", PICTURES[1:2]),
    ("What ?", PICTURES[2:]),
]
STEPS = 4


def left(step: int) -> float:
    """The schedule's closed form, number by number."""
    product = 1.0
    for number in range(step + 1):
        x = -6 + 12 * number / 999
        product *= 1 - ((5e-3 - 1e-5) / (1 + math.exp(-x)) + 1e-5)
    return product


def test_the_schedule_is_its_closed_form():
    found = signal()
    assert found.shape == (1000,)
    for step in (0, 1, 250, 500, 999):
        assert float(found[step]) == pytest.approx(left(step), rel=1e-9)
    # The sigmoid's integral: what a thousand small steps come to.
    area = 1000 / 12 * 5e-3 * math.log((1 + math.exp(6)) / (1 + math.exp(-6)))
    assert -math.log(float(found[999])) == pytest.approx(area, rel=0.01)


class TestNoise:
    def test_its_size_follows_the_schedule(self):
        flat = torch.zeros(3, 64, 64)
        noisy = diffused(flat, 500, seed=1)
        assert float(noisy.std()) == pytest.approx(math.sqrt(1 - left(500)), rel=0.03)
        assert abs(float(noisy.mean())) < 0.03
        assert float(diffused(flat, 0, seed=1).std()) == pytest.approx(math.sqrt(1 - left(0)), rel=0.03)

    def test_it_is_the_images_own(self):
        one, other = torch.rand(3, 8, 8), torch.rand(3, 8, 8)
        assert torch.equal(diffused(one, 500, seed=4), diffused(one.clone(), 500, seed=4))
        assert not torch.equal(diffused(one, 500, seed=4), diffused(one, 500, seed=5))
        noise = [noise_of(image, 500, seed=4) for image in (one, other)]
        assert not torch.allclose(*noise, atol=0.1)
        assert diffused(one.half(), 500, seed=4).dtype == torch.float16

    def test_it_is_the_same_at_every_step(self):
        image = torch.rand(3, 8, 8)
        torch.testing.assert_close(noise_of(image, 500, seed=0), noise_of(image, 900, seed=0), atol=1e-4, rtol=0)


def noise_of(image: torch.Tensor, step: int, seed: int) -> torch.Tensor:
    return (diffused(image, step, seed) - math.sqrt(left(step)) * image) / math.sqrt(1 - left(step))


def noisy(images: torch.Tensor, step: int, seed: int) -> torch.Tensor:
    """Images (..., C, H, W) at a step, the noise taken from another one."""
    flat = images.flatten(0, -4)
    made = [math.sqrt(left(step)) * x + math.sqrt(1 - left(step)) * noise_of(x, 950, seed) for x in flat]
    return torch.stack(made).view_as(images)


def combine(full: torch.Tensor, negative: torch.Tensor, number: int) -> torch.Tensor:
    return naive.contrasted(full, negative, 1.0, 0.1)


def expected(name: str, question: str, pictures: list, noise: str = "image", **settings: int) -> list[int]:
    model, inputs = twobranch.eager(name), families.inputs(name, (question, pictures))
    pixels = inputs["pixel_values"]
    # Qwen's are one image's patches.
    images = pixels[None, None] if pixels.dim() == 2 else pixels
    seed = settings.get("seed", 0)
    if noise == "question":
        seed += zlib.crc32(str(inputs["input_ids"][0].tolist()).encode())
    changed = noisy(images, settings.get("step", 500), seed).view_as(pixels)
    negative = twobranch.reader(model, {**inputs, "pixel_values": changed})
    return twobranch.decode(twobranch.reader(model, inputs), negative, combine, STEPS)


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl", "llava_next", "idefics3"])
@pytest.mark.slow
def test_a_batch_equals_the_naive_branches(name):
    model, _ = families.build(name)
    inputs = families.inputs(name, *ASKED)
    found = model.generate(**inputs, custom_generate=VCD(model=model), max_new_tokens=STEPS)
    assert twobranch.answers(inputs, found) == [expected(name, *asked) for asked in ASKED]
    plain = model.generate(**inputs, max_new_tokens=STEPS)
    assert not torch.equal(plain, found)


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl", "llava_next", "idefics3"])
@pytest.mark.slow
def test_each_question_can_have_noise_of_its_own(name):
    model, _ = families.build(name)
    questions = [question for question, _ in ASKED]
    asked = [(question, PICTURES[:1]) for question in questions]
    inputs, method = families.inputs(name, *asked), VCD(noise_per="question", model=model)
    found = model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS)
    assert twobranch.answers(inputs, found) == [expected(name, *one, noise="question") for one in asked]
    found = model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS, num_return_sequences=1, num_beams=2)
    alone = [
        model.generate(**families.inputs(name, one), custom_generate=method, max_new_tokens=STEPS, num_beams=2)
        for one in asked
    ]
    assert twobranch.answers(inputs, found) == [
        twobranch.answers(families.inputs(name, one), out)[0] for one, out in zip(asked, alone, strict=True)
    ]


def halved(name: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One prompt with images of half the height and width: pixels averaged by loops, and fewer image tokens."""
    config = families.build(name)[0].config
    vision = config.vision_config
    side, merged, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    patches, grids, counts, start = [], [], [], 0
    for _, rows, columns in inputs["image_grid_thw"].tolist():
        image = torch.zeros(frames, 3, rows * side, columns * side)
        for patch, (top, left) in zip(inputs["pixel_values"][start:], places(rows, columns, merged), strict=False):
            shown = patch.view(3, frames, side, side).transpose(0, 1)
            image[:, :, top * side : (top + 1) * side, left * side : (left + 1) * side] = shown
        start += rows * columns
        small_rows, small_columns = (merged * math.ceil(size / merged / 2) for size in (rows, columns))
        small = torch.zeros(frames, 3, small_rows * side, small_columns * side)
        heights, widths = (blocks(*sizes) for sizes in zip(image.shape[2:], small.shape[2:], strict=True))
        for y, height in enumerate(heights):
            for x, width in enumerate(widths):
                small[:, :, y, x] = image[:, :, slice(*height), slice(*width)].mean(dim=(2, 3))
        for top, left in places(small_rows, small_columns, merged):
            part = small[:, :, top * side : (top + 1) * side, left * side : (left + 1) * side]
            patches.append(part.transpose(0, 1).flatten())
        grids.append([1, small_rows, small_columns])
        counts.append((rows * columns // merged**2, small_rows * small_columns // merged**2))
    kept, queue = [], [there < after for before, after in counts for there in range(before)]
    for id in inputs["input_ids"][0].tolist():
        kept.append(queue.pop(0) if id == config.image_token_id else True)
    assert not queue
    by_token = {key: value[:, kept] for key, value in inputs.items() if value.shape == inputs["input_ids"].shape}
    return {**by_token, "pixel_values": torch.stack(patches), "image_grid_thw": torch.tensor(grids)}


def places(rows: int, columns: int, merged: int) -> list[tuple[int, int]]:
    """Where patches stand that follow one another: those of a token together."""
    return [
        (top + i, left + j)
        for top in range(0, rows, merged)
        for left in range(0, columns, merged)
        for i in range(merged)
        for j in range(merged)
    ]


def blocks(size: int, parts: int) -> list[tuple[int, int]]:
    return [(math.floor(n * size / parts), math.ceil((n + 1) * size / parts)) for n in range(parts)]


QUARTER = VCD(kind="quarter")


def asked_of_large_pictures() -> list[tuple[str, list]]:
    pictures = [tiny.image(1, (64, 48)), tiny.image(2, (128, 40)), tiny.image(3, (31, 64))]
    asked = [(question, [picture]) for (question, _), picture in zip(ASKED, pictures, strict=True)]
    return [*asked, ("Is it in both ?", pictures[:2])]


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"])
@pytest.mark.slow
def test_a_quarter_of_the_tokens_equals_a_smaller_image(name):
    model, eager, asked = families.build(name)[0], twobranch.eager(name), asked_of_large_pictures()
    expected = []
    for one in asked:
        own = families.inputs(name, one)
        small = halved(name, own)
        assert small["input_ids"].shape[1] < own["input_ids"].shape[1]
        both = twobranch.reader(eager, own), twobranch.reader(eager, small)
        expected.append(twobranch.decode(*both, combine, STEPS))
    inputs = families.inputs(name, *asked)
    found = model.generate(**inputs, custom_generate=QUARTER, max_new_tokens=STEPS)
    assert twobranch.answers(inputs, found) == expected
    assert not torch.equal(found, model.generate(**inputs, max_new_tokens=STEPS))


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
@pytest.mark.slow
def test_a_quarter_of_the_tokens_with_beams_and_several_questions(name):
    model, asked = families.build(name)[0], asked_of_large_pictures()
    options = {"custom_generate": QUARTER, "max_new_tokens": STEPS, "num_beams": 2, "num_return_sequences": 2}
    inputs = families.inputs(name, *asked)
    alone = []
    for one in asked:
        own = families.inputs(name, one)
        alone += twobranch.answers(own, model.generate(**own, **options))
    assert twobranch.answers(inputs, model.generate(**inputs, **options)) == alone
    lvlm = iava.load(*families.build(name))
    questions, [picture] = [question for question, _ in asked], asked[0][1]
    together = lvlm.ask_many(picture, questions, method=QUARTER, max_new_tokens=STEPS)
    for question, found in zip(questions, together, strict=True):
        own = families.inputs(name, (question, [picture]))
        [tokens] = twobranch.answers(own, model.generate(**own, custom_generate=QUARTER, max_new_tokens=STEPS))
        assert found.tokens == [token for token in tokens if token != 2]


def test_a_quarter_of_the_tokens_needs_any_resolution():
    model, _ = families.build("llava")
    with pytest.raises(IavaError, match="llava reads its images at one resolution, so a smaller one has as many"):
        model.generate(**families.inputs("llava", ASKED[0]), custom_generate=QUARTER, max_new_tokens=1)


def test_prompts_with_different_numbers_of_images_keep_their_noise():
    model, _ = families.build("llava")
    asked = [("Is it in both ?", PICTURES[:2]), ("What ?", PICTURES[2:]), ("Where ?", PICTURES[:2])]
    inputs, method = families.inputs("llava", *asked), VCD(noise_per="question")
    found = model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS)
    assert twobranch.answers(inputs, found) == [expected("llava", *one, noise="question") for one in asked]


def test_step_and_seed_reach_the_noise():
    model, _ = families.build("llava")
    for settings in ({"step": 950}, {"seed": 3}):
        inputs = families.inputs("llava", ASKED[1])
        found = model.generate(**inputs, custom_generate=VCD(**settings), max_new_tokens=STEPS)
        assert twobranch.answers(inputs, found) == [expected("llava", *ASKED[1], **settings)]


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_questions_about_one_image_and_a_reading(name):
    lvlm = iava.load(*families.build(name))
    questions = [question for question, _ in ASKED]
    together = lvlm.ask_many(PICTURES[0], questions, method="vcd", max_new_tokens=3)
    reading = lvlm.read(PICTURES[0])
    for question, found in zip(questions, together, strict=True):
        inputs = families.inputs(name, (question, PICTURES[:1]))
        model = lvlm.model
        alone = model.generate(**inputs, custom_generate=VCD(), max_new_tokens=3)
        tokens = [token for token in twobranch.answers(inputs, alone)[0] if token != 2]
        assert found.tokens == tokens == reading.ask(question, method="vcd", max_new_tokens=3).tokens


def test_the_noisy_image_is_read_once_for_all_questions():
    model, _ = families.build("llava")
    read: list[int] = []
    handle = model.base_model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    iava.load(*families.build("llava")).ask_many(PICTURES[0], [question for question, _ in ASKED], method="vcd")
    handle.remove()
    assert read[-1] == 1


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_without_contrast_it_is_plain_generate(options):
    model, _ = families.build("llava")
    inputs = families.inputs("llava", *ASKED)
    found = []
    for method in (None, VCD(alpha=0, beta=0)):
        torch.manual_seed(5)
        found.append(model.generate(**inputs, custom_generate=method, max_new_tokens=5, **options))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("step", 1000, "a whole number, at least 0 and at most 999"),
        ("step", 1.5, "a whole number"),
        ("step", True, "a whole number"),
        ("seed", -1, "a whole number, at least 0"),
        ("alpha", -1, "at least 0"),
        ("beta", 2, "at least 0 and at most 1"),
    ],
)
def test_bad_settings_get_one_line(setting, value, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        VCD(**{setting: value})
    assert str(caught.value).startswith(f"{setting} is {value!r}: it must be")


def test_noise_of_something_else_is_refused():
    with pytest.raises(ValueError, match="noise_per is 'batch': it must be one of image, question"):
        VCD(noise_per="batch")

"""The explorer in a real browser: sliders, layers and taps give the values that Python computes."""

import numpy as np
import pytest
import torch

import iava
from iava.explain.page import answer_by_methods, explain_page
from iava.lvlm.model import LVLM
from tests import families, tiny

pytestmark = pytest.mark.browser

QUESTIONS = ["Is there a dog in the picture ?", "Where <b>?"]
METHODS = {"greedy": {}, "iava": {"negative": "zeros", "top_i": 6, "lam": -0.5}}
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright", reason="make test-browser installs it")
    from tests.browser.driver import chromium

    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def answers():
    lvlm = LVLM(tiny.model(image_size=48), tiny.processor(image_size=48))
    return answer_by_methods(lvlm, tiny.image(size=(96, 64)), QUESTIONS, METHODS, max_new_tokens=4, seed=0)


@pytest.fixture(scope="module")
def path(answers, tmp_path_factory):
    return written(tmp_path_factory, explain_page(tiny.image(size=(96, 64)), answers, model="tiny"))


@pytest.fixture
def page(browser, path):
    with opened(browser, path) as page:
        yield page


def written(tmp_path_factory, html):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html)
    return path


class opened:  # noqa: N801
    """A page in a window of its own. Requests to the network and JavaScript errors fail the test."""

    def __init__(self, browser, path, **settings):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.page = self.context.new_page()
        self.wrong = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        outside = ("file:", "data:")
        self.page.on("request", lambda r: None if r.url.startswith(outside) else self.wrong.append(r.url))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self.page

    def __exit__(self, *_):
        self.context.close()
        assert self.wrong == []


def painted(page):
    return page.evaluate("document.getElementById('overlay').toDataURL()")


def colour_at(page, box, size):
    """Red, green, blue, alpha of the overlay in the middle of a box given in pixels of the picture."""
    x, y = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
    return page.evaluate(
        """([x, y]) => { const c = document.getElementById('overlay');
        return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data]; }""",
        [x, y],
    )


def selected(explanation, top_i, lam, layer=None):
    general, query = explanation.att_general, explanation.att_query
    if layer is not None:
        general, query = explanation.layers_general[layer], explanation.layers_query[layer]
    return iava.select_irrelevant(general[None], query[None], top_i=top_i, lam=lam)[0]


def choose(page, overlay):
    page.locator(f"#overlays input[value={overlay}]").check()


def test_sliders_select_what_python_selects(page, answers):
    explanation = answers[0][1][1].explanation
    tokens = len(explanation.selected)
    assert page.locator("#n-selected").inner_text() == str(int(explanation.selected.sum()))
    counts = set()
    for layer in (None, 0, 2):
        page.locator("#layer").fill(str(0 if layer is None else layer + 1))
        for top_i in (1, 5, tokens):
            for lam in (-1.5, -0.5, 0, 0.8):
                page.locator("#top-i").fill(str(top_i))
                page.locator("#lam").fill(str(lam))
                expected = int(selected(explanation, top_i, lam, layer).sum())
                assert page.locator("#n-selected").inner_text() == str(expected)
                counts.add(expected)
    assert len(counts) > 3
    assert page.locator("#flags").inner_text() == f"--top-i {tokens} --lam 0.8 --layers 2"
    page.locator("#reset").click()
    assert page.locator("#n-selected").inner_text() == str(int(explanation.selected.sum()))
    assert page.locator("#as-answered").is_visible()


def test_the_page_selects_as_python_does_to_the_last_token(page):
    """For random attention, equal drops, equal attention, and a threshold equal to a token's attention."""
    generator = torch.Generator().manual_seed(0)
    rows = [(torch.rand(n, generator=generator) / n, torch.rand(n, generator=generator) / n) for n in (1, 2, 32, 576)]
    coarse = (torch.rand(40, generator=generator) * 4).round() / 64
    rows += [(coarse, coarse.roll(1)), (torch.full((7,), 0.1), torch.full((7,), 0.05)), (coarse, coarse)]
    for general, query in rows:
        given = {
            "general": general.tolist(),
            "query": query.tolist(),
            **dict(zip(("mean", "std"), (float(v) for v in spread(general)), strict=True)),
        }
        for top_i in (1, 3, len(general)):
            for lam in (-0.1, 0, 0.7, 1 / 3):
                found = page.evaluate(
                    """([map, topI, lam, rounding]) => iava.select({ ...map, general: new Float32Array(map.general),
                    query: new Float32Array(map.query) }, topI, lam, rounding).selected""",
                    [given, top_i, lam, ROUNDING],
                )
                expected = iava.select_irrelevant(general[None], query[None], top_i=top_i, lam=lam)[0]
                assert found == expected.tolist()


def spread(row):
    from iava.methods.select import spread

    return spread(row[None], torch.ones(1, len(row), dtype=torch.bool))


def test_overlays_differ_and_have_the_right_colours(page, answers):
    explanation, size = answers[0][1][1].explanation, (96, 64)
    images = set()
    for overlay in ("picture", "general", "query", "drop", "selected", "negative"):
        choose(page, overlay)
        images.add(painted(page))
        assert page.locator("#legend").is_visible() == (overlay in ("general", "query", "drop"))
    assert len(images) == 6
    kept = explanation.selected.numpy()
    assert 0 < kept.sum() < len(kept)
    for box, stays in zip(explanation.boxes, kept, strict=True):
        assert colour_at(page, box, size) == ([0, 0, 0, 0] if stays else [0, 0, 0, 255])
    choose(page, "general")
    most, least = int(explanation.att_general.argmax()), int(explanation.att_general.argmin())
    assert colour_at(page, explanation.boxes[most], size)[:3] == pytest.approx([252, 255, 164], abs=4)
    assert sum(colour_at(page, explanation.boxes[least], size)[:3]) < 300
    choose(page, "drop")
    fall = explanation.att_general - explanation.att_query
    red, _, blue, _ = colour_at(page, explanation.boxes[int(fall.argmax())], size)
    assert red > blue
    red, _, blue, _ = colour_at(page, explanation.boxes[int(fall.argmin())], size)
    assert red < blue


def test_layers_and_opacity_repaint(page):
    images = {painted(page)}
    for layer in (1, 2, 3):
        page.locator("#layer").fill(str(layer))
        assert page.locator("#layer-value").inner_text() == f"layer {layer - 1}"
        images.add(painted(page))
    assert len(images) == 4
    page.locator("#opacity").fill("0")
    assert page.locator("#opacity-value").inner_text() == "0 %"
    assert page.evaluate(
        """() => { const c = document.getElementById('overlay'), b = 0.2;
        return c.getContext('2d').getImageData(c.width * b, c.height * b, c.width * (1 - 2 * b), c.height * (1 - 2 * b))
        .data.filter((_, k) => k % 4 === 3).every(alpha => alpha === 0); }"""
    )


def place(page, box, size=(96, 64)):
    frame = page.locator("#stage").bounding_box()
    x, y = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
    return frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]


def token_rows(page):
    return page.locator("#token-rows").inner_text().replace("\t", " ").splitlines()


def numbers(explanation, n):
    general, query = explanation.att_general, explanation.att_query
    fall = general - query
    sign = "+" if fall[n] > 0 else "−"

    def ranked(row):
        return f"{int((row > row[n]).sum()) + 1} of {len(row)}"

    def percent(value):
        return f"{100 * value:.{3 if 100 * value < 10 else 2}f} %"

    return [
        f"general {percent(float(general[n]))} {ranked(general)}",
        f"question {percent(float(query[n]))} {ranked(query)}",
        f"drop {sign}{percent(abs(float(fall[n])))} {ranked(fall)}",
    ]


def test_pointing_shows_a_tokens_numbers_and_ranks(page, answers):
    explanation = answers[0][1][1].explanation
    page.mouse.move(*place(page, explanation.boxes[14]))
    assert page.locator("#number").input_value() == "14"
    assert token_rows(page) == numbers(explanation, 14)
    verdict = page.locator("#token-marks .verdict").inner_text()
    assert verdict.startswith("Selected") == bool(explanation.selected[14])
    page.mouse.move(*place(page, explanation.boxes[15]))
    assert token_rows(page) == numbers(explanation, 15)
    page.mouse.move(2, 2)
    assert page.locator("#token-hint").is_visible()
    page.mouse.click(*place(page, explanation.boxes[8]))
    page.mouse.move(2, 2)
    assert token_rows(page) == numbers(explanation, 8)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.locator("#number").input_value() == "15"
    page.keyboard.press("Escape")
    assert page.locator("#number").input_value() == ""
    page.locator("#number").fill("3")
    assert token_rows(page) == numbers(explanation, 3)


def test_it_works_on_a_phone(browser, path, answers):
    explanation = answers[0][1][1].explanation
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with opened(browser, path, **phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.locator("#stage").scroll_into_view_if_needed()
        page.touchscreen.tap(*place(page, explanation.boxes[20]))
        assert page.locator("#number").input_value() == "20"
        assert token_rows(page) == numbers(explanation, 20)
        page.touchscreen.tap(*place(page, explanation.boxes[20]))
        assert page.locator("#number").input_value() == ""


def test_words_and_candidates_are_those_of_the_answer(page, answers):
    def shown():
        rows = page.locator(".branch").all()
        return [[code.strip() for code in row.locator("code").all_inner_texts()] for row in rows]

    def expected(answer, step):
        kinds = [kind for kind in ("full", "negative", "combined") if kind in answer.explanation.steps[step]]
        return [[one["text"].strip() or "␣" for one in answer.explanation.steps[step][kind]] for kind in kinds]

    greedy, ours = answers[0][1]
    assert [line.split("\n")[1] for line in page.locator("#answers .answer").all_inner_texts()] == [
        greedy.text or "(empty)",
        ours.text or "(empty)",
    ]
    assert shown() == expected(ours, 0)
    page.locator("#steps button").nth(1).click()
    assert shown() == expected(ours, 1)
    page.locator("#methods input").nth(0).check()
    assert shown() == expected(greedy, 1)
    page.locator("#questions button").nth(1).click()
    assert page.locator("#question").inner_text() == QUESTIONS[1]
    assert shown() == expected(answers[1][1][1], 0)
    assert page.locator("#n-selected").inner_text() == str(int(answers[1][1][1].explanation.selected.sum()))


def test_everything_has_a_name_and_can_be_read(browser, path):
    for scheme in ("light", "dark"):
        with opened(browser, path, color_scheme=scheme) as page:
            unnamed = page.evaluate(
                """() => [...document.querySelectorAll('input, button, canvas:not([aria-hidden]), img')].filter(e =>
                !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim() || e.alt)).map(e => e.id)"""
            )
            assert unnamed == []
            names = ("--ink", "--muted", "--accent", "--pick", "--right", "--wrong", "--paper", "--card", "--soft")
            colours = {
                name: page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", name)
                for name in names
            }
            for name in names[:6]:
                for ground in names[6:8] if name != "--muted" else names[6:]:
                    assert contrast(colours[name], colours[ground]) >= 4.5, (scheme, name, ground)


def contrast(one, other):
    """The ratio of two hexadecimal colours' luminances, as WCAG 2 defines it."""

    def luminance(colour):
        parts = np.array([int(colour.strip()[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def page_of(name, picture):
    lvlm = LVLM(*families.build(name))
    answers = answer_by_methods(
        lvlm, picture, ["What ?"], {"iava": {"negative": "zeros", "top_i": 0.5, "lam": -1.0}}, max_new_tokens=1, seed=0
    )
    return answers[0][1][0].explanation, explain_page(picture, answers, model=name)


def test_tiles_and_overview_are_seen_one_at_a_time(browser, tmp_path_factory):
    picture = tiny.image(size=(96, 48))
    explanation, html = page_of("internvl", picture)
    with opened(browser, written(tmp_path_factory, html)) as page:
        first = painted(page)
        page.mouse.move(*place(page, explanation.boxes[0], picture.size))
        assert page.locator("#number").input_value() == "0"
        page.mouse.move(2, 2)
        page.locator("#view-choice input").nth(1).check()
        assert painted(page) != first
        last = len(explanation.boxes) - 1
        page.mouse.move(*place(page, explanation.boxes[last], picture.size))
        assert page.locator("#number").input_value() == str(last)
        # Choosing a token of the other view shows that view.
        page.locator("#number").fill("0")
        assert page.locator("#view-choice input").nth(0).is_checked()


def test_queries_show_their_cross_attention(browser, tmp_path_factory):
    picture = tiny.image()
    explanation, html = page_of("instructblip", picture)
    with opened(browser, written(tmp_path_factory, html)) as page:
        cells = page.locator("#strip button")
        assert cells.count() == 32
        images = {painted(page)}
        for n in (3, 9):
            cells.nth(n).click()
            assert page.locator("#number").input_value() == str(n)
            images.add(painted(page))
            brightest = int(explanation.cross_attention.query[n].argmax())
            assert colour_at(page, explanation.cross_attention.boxes[brightest], picture.size)[:3] == pytest.approx(
                [252, 255, 164], abs=4
            )
        assert len(images) == 3

"""The page holds what was asked, answered and weighed, and needs nothing from outside."""

import re
from html.parser import HTMLParser

import pytest

from iava.explain.page import explain_page
from iava.lvlm import LVLM
from tests import tiny

QUESTION = "Is there a dog in the <b>picture</b> ?"


class Reader(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.panes, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        if attributes.get("class") == "pane":
            self.panes.append(attributes["aria-label"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def asked():
    lvlm = LVLM(tiny.model(), tiny.processor())
    methods = {"greedy": {}, "iava": {"top_i": 5, "general": "See this picture ."}}
    return QUESTION, [
        lvlm.ask(tiny.image(), QUESTION, method=name, explain=True, max_new_tokens=3, **settings)
        for name, settings in methods.items()
    ]


def test_the_page_is_self_contained_and_complete(asked):
    html = explain_page(tiny.image(), [asked], model="tiny <model>")
    page = Reader(html)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\((?!data:)", html)
    assert len(page.panes) == 4
    assert QUESTION in page.text
    assert "tiny <model>" in page.text
    assert "under “See this picture .”" in page.text
    for answer in asked[1]:
        assert all(word in page.text for word in answer.text.split())
    steps = sum(len(answer.explanation.steps) for answer in asked[1])
    assert html.count("data-step>") == steps
    assert page.text.count("whole image") >= steps


def test_a_method_without_attention_shows_the_picture_alone(asked):
    question, (greedy, _) = asked
    page = Reader(explain_page(tiny.image(), [(question, [greedy]), (question, [greedy])], model="tiny"))
    assert page.panes == ["The picture", "The picture"]
    assert "2 questions about one picture" in page.text

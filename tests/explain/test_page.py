"""The page holds questions, answers and decoding steps, and is self-contained."""

import json
import re
from html.parser import HTMLParser

import pytest

from iava.explain.page import answer_by_methods, explain_page
from iava.lvlm.model import LVLM
from tests import tiny

QUESTION = "Is there a dog in the <b>picture</b> ?"
METHODS = {"greedy": {}, "sample": {}, "iava": {"top_i": 5, "general": "See this picture ."}}


class Reader(HTMLParser):
    """A page's visible text, links, panes, and JSON."""

    def __init__(self, html):
        super().__init__()
        self.links, self.panes, self.text, self.data, self.tags = [], [], "", [], []
        self._inside = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        self._inside = attributes.get("type", tag) if tag in ("script", "style") else None
        if attributes.get("class") == "pane":
            self.panes.append(attributes["aria-label"])

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "application/json":
            self.data.append(json.loads(data))
        elif self._inside is None:
            self.text += data


@pytest.fixture(scope="module")
def answers():
    lvlm = LVLM(tiny.model(), tiny.processor())
    return answer_by_methods(lvlm, tiny.image(), [QUESTION, "Where ?"], METHODS, max_new_tokens=3, seed=1)


def test_the_page_is_self_contained_and_complete(answers):
    html = explain_page(tiny.image(), answers, model="tiny <model>", facts={"Seed": "one & only"})
    page = Reader(html)
    assert [link[:22] for link in page.links] == ["data:image/jpeg;base64"]
    assert not re.search(r"https?://|@import|url\((?!data:)", html)
    for words in (QUESTION, "tiny <model>", "one & only", "top_i=5", "differs from the first"):
        assert words in page.text
    (data,) = page.data
    assert [one["question"] for one in data["questions"]] == [QUESTION, "Where ?"]
    for shown, (_, by_method) in zip(data["questions"], answers, strict=True):
        assert shown["attention"]["instruction"] == "See this picture ."
        assert [one["method"] for one in shown["answers"]] == list(METHODS)
        for one, answer in zip(shown["answers"], by_method, strict=True):
            assert " ".join(word for word, _ in one["words"]) == answer.text
            assert [step["chosen"] for step in one["steps"]][: len(answer.tokens)] == answer.tokens
            for step, candidates in zip(one["steps"], answer.explanation.steps, strict=True):
                assert {kind: step.get(kind) for kind in candidates} == candidates
                chosen = [c["probability"] for c in candidates["combined"] if c["id"] == step["chosen"]]
                assert [step["probability"]] == (chosen or [None])


def test_a_method_without_attention_has_no_attention_data(answers):
    question, by_method = answers[0]
    page = Reader(explain_page(tiny.image(), [(question, by_method[:1])], model="tiny"))
    assert page.data[0]["questions"][0]["attention"] is None
    assert "differs from" not in page.text

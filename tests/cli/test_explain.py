"""`iava explain` writes its page or refuses in one line."""

from tests.commands import refused, run
from tests.explain.test_page import Reader

QUESTION = "Is there a dog in the image ?"


def test_explain_writes_the_page(picture, tmp_path, tiny_folder):
    page = tmp_path / "page.html"
    arguments = ("explain", picture, QUESTION, "Where ?", "-o", page, "--methods", "greedy,apc,iava")
    result = run(*arguments, "--model", tiny_folder, "--top-i", 3, "--layers", "0,-1", "--max-new-tokens", 2)
    assert (result.exit_code, result.stdout) == (0, f"page: {page}\n")
    (data,) = Reader(page.read_text()).data
    assert [one["question"] for one in data["questions"]] == [QUESTION, "Where ?"]
    for one in data["questions"]:
        assert [answer["method"] for answer in one["answers"]] == ["greedy", "apc", "iava"]
        assert (one["attention"]["top_i"], one["attention"]["layers"]) == (3, [0, -1])


def test_bad_input_is_one_line_and_leaves_nothing(picture, tmp_path):
    page = tmp_path / "page.html"

    def said(image, question, *options):
        return refused("explain", image, question, "-o", page, "--model", "no/such/model", *options)

    assert "the question is ' '" in said(picture, " ")
    assert "no image at" in said(tmp_path / "none.png", QUESTION)
    assert "unknown method 'magic'" in said(picture, QUESTION, "--methods", "magic")
    assert "--top-i was given" in said(picture, QUESTION, "--methods", "greedy", "--top-i", 3)
    assert "top_i is" in said(picture, QUESTION, "--top-i", 2.5)
    assert "max_new_tokens is 0" in said(picture, QUESTION, "--max-new-tokens", 0)
    assert "there is no folder" in said(picture, QUESTION, "--out", tmp_path / "no" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

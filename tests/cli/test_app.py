"""The command line: what it prints, and one line with exit code 2 for everything that is wrong."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from iava.cli import app as cli
from iava.lvlm import model as lvlm
from tests import tiny
from tests.commands import refused, run
from tests.fakes import FakeLVLM
from tests.folders import written

QUESTION = "Is there a dog in the image ?"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    tiny.image().save(path)
    return str(path)


@pytest.fixture
def with_tiny(monkeypatch):
    monkeypatch.setattr(cli, "_load", lambda model: lvlm.LVLM(tiny.model(), tiny.processor()))


@pytest.fixture
def with_fake(monkeypatch):
    fake = FakeLVLM()
    monkeypatch.setattr(cli, "_load", lambda model: fake)
    return fake


@pytest.fixture
def with_none(monkeypatch):
    """Bad input must be found before a model is loaded."""

    def load(model):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(cli, "_load", load)


@pytest.mark.usefixtures("with_tiny")
def test_ask_prints_the_answer_alone(picture):
    result = run("ask", picture, QUESTION, "--top-i", "3", "--max-new-tokens", "4")
    expected = lvlm.LVLM(tiny.model(), tiny.processor()).ask(picture, QUESTION, top_i=3, max_new_tokens=4)
    assert (result.exit_code, result.stdout.strip()) == (0, expected.text)


@pytest.mark.usefixtures("with_tiny")
def test_json_is_all_there_is_on_standard_output(picture):
    one = json.loads(run("ask", picture, QUESTION, "--json", "--top-i", "0.5", "--lam", "-0.1").stdout)
    assert (one["method"], one["question"], one["model"]) == ("iava", QUESTION, "pocket")
    assert (one["settings"]["top_i"], one["settings"]["lam"]) == (0.5, -0.1)
    four = json.loads(run("ask", picture, QUESTION, "Where ?", "--compare", "greedy,iava", "--json").stdout)
    asked = [(QUESTION, "greedy"), (QUESTION, "iava"), ("Where ?", "greedy"), ("Where ?", "iava")]
    assert [(one["question"], one["method"]) for one in four] == asked


@pytest.mark.usefixtures("with_tiny")
def test_compare_prints_a_table_and_explain_writes_a_page(picture, tmp_path):
    page = tmp_path / "why.html"
    result = run("ask", picture, QUESTION, "--compare", "greedy,iava", "--explain", page, "--layers", "0,-1")
    assert result.exit_code == 0
    assert re.search(r"question +greedy +iava", result.stdout)
    assert "iava explorer" in page.read_text()


def test_eval_prints_the_table_and_resumes(with_fake, tmp_path):
    arguments = ("eval", "pope", "--split", "tune-heldout", "--limit", "2", "--tune-images", "1", "--out", tmp_path)
    result = run(*arguments, "--alpha", "0.5")
    assert result.exit_code == 0, result.output
    assert "constant bias" in result.stdout
    assert "the best control (" in result.stdout
    assert "the best control (" in (tmp_path / "report.html").read_text()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["settings"]["alpha"] for row in rows if row["method"] == "iava"} == {0.5}
    with_fake.asked.clear()
    assert run(*arguments, "--alpha", "0.5").exit_code == 0
    assert with_fake.asked == []
    assert "methods.iava.alpha is 0.5 there, 1.0 here" in refused(*arguments)


def test_eval_of_every_benchmark_in_a_folder(with_fake, tmp_path):
    data = written(tmp_path / "data")
    for name, category, metric, errors in (
        ("pope-gqa", "random", "accuracy", 2),
        ("mme", "count", "score", 2),
        ("textvqa", "overall", "accuracy", 1),
        ("chair", "overall", "chair_s", 1),
        ("amber", "overall", "score", 2),
    ):
        out = tmp_path / name
        arguments = ("eval", name, "--model", "fake", "--data", data, "--out", out)
        result = run(*arguments)
        assert result.exit_code == 0, result.output + str(result.exception)
        assert "the best control (" in result.stdout
        written_results = json.loads((out / "results.json").read_text())
        (row,) = [r for r in written_results["rows"] if (r["category"], r["method"]) == (category, "iava")]
        assert (row["benchmark"], row["main"], row["errors"]) == (name, metric, errors)
        records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
        assert len({(r["id"], r["method"]) for r in records}) == len(records)
        # The broken picture is an error of its questions, by every method, and only of them.
        assert {r["image"] for r in records if "error" in r} == {r["image"] for r in records if "bad" in r["image"]}
        assert any("bad" in r["image"] for r in records)
        assert "got no answer and are left out" in result.stderr
        assert written_results["manifest"]["data"] == str(data)
        with_fake.asked.clear()
        assert run(*arguments).exit_code == 0
        assert with_fake.asked == []
        assert "unknown split 'train'" in refused(*arguments, "--split", "train")


@pytest.mark.usefixtures("with_none")
@pytest.mark.parametrize(
    ("name", "file", "old", "new", "words"),
    [
        ("pope-gqa", "gqa_pope_random.json", '"label": "no"}', '"label": "no', "line 2: this is no JSON"),
        (
            "pope-gqa",
            "gqa_pope_random.json",
            '"question_id": 1,',
            '"question_id": 0,',
            "line 2: question_id random-0 was",
        ),
        ("pope-gqa", "gqa_pope_random.json", '"no"', '"none"', "line 2: 'label' is 'none': it must be yes or no"),
        ("pope-gqa", "gqa_pope_random.json", "green.jpg", "blue.jpg", "line 3: the image blue.jpg is missing from"),
        ("mme", "count/red.txt", "Are there two dogs?\tNo\n", "", "line 1: image count/red.jpg has one question"),
        ("textvqa", "TextVQA_0.5.1_val.json", "]}]}", "]}", "line 1, column"),
    ],
)
def test_eval_of_broken_data_says_where_and_writes_nothing(tmp_path, name, file, old, new, words):
    path = written(tmp_path / "data") / name / file
    path.write_text(path.read_text().replace(old, new, 1))
    said = refused("eval", name, "--model", "fake", "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert f"{path}, {words}" in said
    assert not (tmp_path / "out").exists()


def test_eval_of_a_model_that_says_nothing_is_wrong_and_says_so(with_fake, monkeypatch, tmp_path):
    answer = with_fake._answer
    monkeypatch.setattr(with_fake, "_answer", lambda *given: replace(answer(*given), text=""))
    arguments = ("--model", "fake", "--data", written(tmp_path / "data"), "--out", tmp_path / "out")
    result = run("eval", "pope-gqa", *arguments, "--methods", "greedy,bias,iava")
    assert result.exit_code == 0, result.output + str(result.exception)
    assert "iava: IAVA: 4 of 6 answers are empty; random-0: ''" in result.stderr
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["metrics"]["accuracy"] for row in rows} == {0.0}
    assert {row["metrics"]["unparsed"] for row in rows} == {1.0}


@pytest.mark.usefixtures("with_none")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top-i", "0"], "top_i"),
        (["--top-i", "0.0"], "top_i"),
        (["--top-i", "1.5"], "top_i"),
        (["--top-i", "nan"], "top_i"),
        (["--top-i", "many"], "top_i is 'many': it must be a count such as 40, a share such as 0.2, or \"auto\""),
        (["--alpha", "-1"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--beta", "1.5"], "beta"),
        (["--beta", "nan"], "beta"),
        (["--lam", "nan"], "lam"),
        (["--lam", "inf"], "lam"),
        (["--layers", "x"], "layers is 'x'"),
        (["--general", " "], "general"),
        (["--negative", "blur"], "negative is 'blur'"),
        (["--method", "magic"], "unknown method 'magic': use one of greedy"),
        (["--method", "greedy", "--alpha", "1"], "--alpha was given, but greedy has no such setting"),
        (["--compare", "greedy,,iava"], "compare is 'greedy,,iava'"),
        (["--compare", "greedy,greedy"], "list of different methods"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--explain", "/nowhere/at/all.html"], "there is no folder /nowhere/at"),
        (["--explain", "/"], "cannot write /"),
    ],
)
def test_bad_options_of_ask(picture, options, words):
    assert words in refused("ask", picture, QUESTION, *options)


@pytest.mark.usefixtures("with_none")
def test_images_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    tiny.image(size=(200, 200)).save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    Image.new("1", (40_000, 8)).save(tmp_path / "wide.png")
    for name in ("missing.png", "empty.png", "text.png", "broken.png", "wide.png"):
        assert name in refused("ask", tmp_path / name, QUESTION)


@pytest.mark.usefixtures("with_none")
def test_blank_questions(picture):
    assert "the question is ''" in refused("ask", picture, QUESTION, "")


@pytest.mark.usefixtures("with_none")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "val"], "unknown split 'val'"),
        (["--shard", "2"], "shard is '2': it must be a number and how many there are, such as 1/4"),
        (["--shard", "3/2"], "shard is 3/2: it must be from 1/2 to 2/2"),
        (["--limit", "1", "--shard", "2/2"], "shard 2/2 is empty: there are 1 images"),
        (["--model", "some/model"], "--data is missing: name the folder that holds pope"),
        (["--data", "nowhere"], "there is no pope in nowhere: put into nowhere/pope: the data set lmms-lab/POPE"),
        (["--limit", "0"], "limit is 0"),
        (["--methods", "greedy,"], "methods is 'greedy,'"),
        (["--methods", ""], "methods is ''"),
        (["--methods", "greedy,magic"], "unknown method 'magic'"),
        (["--methods", "bias"], "bias is fitted to the yes-rate of another method"),
        (["--methods", "greedy", "--alpha", "1"], "--alpha was given, but greedy has no such setting"),
        (["--alpha", "-1"], "alpha is -1.0"),
        (["--parser", "vague"], "unknown parser 'vague'"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--out", "/proc/run"], "cannot write to /proc/run"),
    ],
)
def test_bad_options_of_eval(tmp_path, options, words):
    folder = tmp_path / "run"
    assert words in refused("eval", "pope", "--split", "tune", "--out", folder, *options)
    assert not folder.exists()


@pytest.mark.usefixtures("with_none")
def test_unknown_benchmark_and_bad_demo(tmp_path):
    assert "unknown benchmark 'vqa': use one of pope" in refused("eval", "vqa", "--out", tmp_path)
    assert "textvqa has no pocket version" in refused("eval", "textvqa", "--out", tmp_path)
    assert "bias moves yes against no" in refused("eval", "chair", "--methods", "greedy,bias", "--out", tmp_path)
    assert "limit is 0" in refused("demo", "--limit", "0", "--out", tmp_path)
    (tmp_path / "file").touch()
    assert "cannot write to" in refused("demo", "--out", tmp_path / "file" / "demo")


def test_an_unknown_model_is_one_line(picture, tmp_path):
    assert "unknown model" in refused("ask", picture, QUESTION, "--model", tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == [tmp_path / "picture.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask"], "Missing argument"),
        (["ask", "x.png", "q", "--beta", "much"], "--beta"),
        (["ask", "x.png", "q", "--gamma", "1"], "--gamma"),
        (["eval", "pope"], "--out"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_a_wrong_command_line_is_one_line(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(sys, "argv", ["iava", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_in_a_shell_bad_input_leaves_no_traceback(tmp_path):
    command = [sys.executable, "-c", "from iava.cli.app import main; main()", "ask", str(tmp_path / "no.png"), "Who?"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("iava: error: ")
    assert ended.stderr.count("\n") == 1


def test_help_does_not_wait_for_torch():
    script = (
        "import sys\n"
        "sys.argv = ['iava', '--help']\n"
        "from iava.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        "print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "demo" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "False"

"""Loading options and methods from outside the package, as commands take them."""

import json
import sys

import pytest

from tests.commands import refused, run

QUESTION = "Is there a dog in the image ?"
DRAWN = {"sampling": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
PLANTED = """
from iava.methods.controls import APC

class Mine(APC):
    name = "mine"
"""


def evaluated(folder, tiny_folder, *options):
    arguments = ("--model", tiny_folder, "--data", "pocket", "--limit", "1", "--max-new-tokens", "1", "--out", folder)
    result = run("eval", "pope", *arguments, *options)
    assert result.exit_code == 0, result.output
    return json.loads((folder / "results.json").read_text())


def test_the_dtype_reaches_the_model_and_no_token_is_recorded(tmp_path, tiny_folder):
    options = ("--methods", "greedy", "--dtype", "bfloat16", "--local-files-only")
    for number, token in enumerate((("--token", "hf_secret"), ("--token=hf_secret",))):
        folder = tmp_path / str(number)
        manifest = evaluated(folder, tiny_folder, *options, *token)["manifest"]
        assert manifest["machine"]["dtype"] == "bfloat16"
        assert "--dtype bfloat16" in manifest["command"]
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert written
        assert not any("hf_secret" in path.read_text() for path in written)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dtype", "int8"], "dtype is 'int8'"),
        (["--device", "toaster"], "device is 'toaster'"),
        (["--device", "cpu", "--device-map", "auto"], "device and device_map exclude each other"),
        (["--quantization", "3bit"], "quantization is '3bit'"),
    ],
)
def test_bad_loading_options(picture, tiny_folder, options, words):
    assert words in refused("ask", picture, QUESTION, "--model", tiny_folder, *options)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module in the working directory, which no installed package knows."""
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "planted:Mine"
    sys.modules.pop("planted", None)


def test_a_method_of_ones_own_is_asked_and_measured(planted, picture, tmp_path, tiny_folder):
    options = ("--model", tiny_folder, "--seed", "1", "--json", "--max-new-tokens", "4")
    mine, apc = json.loads(
        run("ask", picture, QUESTION, "--compare", f"{planted},apc", "--beta", "0.3", *options).stdout
    )
    assert (mine["method"], mine["settings"]) == (planted, {"beta": 0.3} | DRAWN)
    assert mine["text"] == apc["text"]
    results = evaluated(tmp_path / "run", tiny_folder, "--methods", f"greedy,{planted}", "--set", f"{planted}.beta=0.2")
    overall = [row for row in results["rows"] if row["category"] == "overall"]
    assert [(row["method"], row["settings"]) for row in overall] == [("greedy", {}), (planted, {"beta": 0.2} | DRAWN)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere:Mine", "method 'nowhere:Mine' cannot be imported: No module named 'nowhere'"),
        ("planted:Yours", "cannot be imported"),
        ("planted:APC.__init__", "cannot be imported"),
        ("json:JSONDecoder", "is no subclass of iava.methods.base.Method"),
    ],
)
@pytest.mark.usefixtures("planted")
def test_what_is_not_a_method(picture, name, words):
    assert words in refused("ask", picture, QUESTION, "--method", name, "--model", "no/such/model")

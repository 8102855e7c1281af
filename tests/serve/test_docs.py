"""The commands and the Python code of docs/serving.md run as they are written."""

import json
import re
import subprocess
from contextlib import redirect_stdout
from io import StringIO

import pytest

from iava.lvlm.loading import load
from iava.pocket.scenes import load_scene
from tests.docs.pages import ROOT
from tools.serve_load.process import Process

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
QUESTION = "Is there a dog in the image?"


def blocks(language, words):
    return [text for name, text in BLOCKS if name == language and words in text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with photo.jpg, a server at the address of the page, and a key file."""
    made = tmp_path_factory.mktemp("docs")
    load_scene("test", 1).render().save(made / "photo.jpg")
    server = Process("serve", "pocket", "--port", 8000)
    yield made
    server.process.terminate()
    assert server.end()[0] == 0


@pytest.fixture(scope="module")
def expected(folder):
    lvlm = load("pocket")
    return {
        method: lvlm.ask(folder / "photo.jpg", QUESTION, method=method, **settings).text
        for method, settings in (("iava", {}), ("vcd", {"alpha": 0.5}))
    }


def test_the_curl_commands(folder, expected):
    commands = blocks("", "curl ")
    assert len(commands) >= 2
    for command in commands:
        found = subprocess.run(["bash", "-e"], input=command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert found.returncode == 0, found.stderr
        answer = json.loads(found.stdout)
        if QUESTION in command:
            assert answer["choices"][0]["message"]["content"] == expected["iava"]
        else:
            assert {"greedy", "iava", "vcd"} <= {card["name"] for card in answer["data"]}


def test_the_python_client(folder, expected, monkeypatch):
    monkeypatch.chdir(folder)
    (code,) = blocks("python", "from openai import OpenAI")
    with redirect_stdout(StringIO()) as printed:
        exec(code, {})
    assert printed.getvalue().strip() == expected["vcd"]

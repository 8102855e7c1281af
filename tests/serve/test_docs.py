"""The commands and the Python code of docs/serving.md run as they are written, at a free port."""

import json
import re
import shlex
import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO

import pytest

from iava.lvlm.loading import load
from iava.pocket.scenes import load_scene
from tests.commands import run
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
    """A folder with photo.jpg."""
    made = tmp_path_factory.mktemp("docs")
    load_scene("test", 1).render().save(made / "photo.jpg")
    return made


@pytest.fixture(scope="module")
def at_server():
    """A function that puts the address of a running server in the place of the page's."""
    server = Process("serve", "pocket", "--port", 0)
    yield lambda code: code.replace("http://127.0.0.1:8000", server.url)
    server.process.terminate()
    assert server.end()[0] == 0


@pytest.fixture(scope="module")
def expected(folder):
    lvlm = load("pocket")
    return {
        method: lvlm.ask(folder / "photo.jpg", QUESTION, method=method, **settings).text
        for method, settings in (("iava", {}), ("vcd", {"alpha": 0.5}))
    }


def printed(codes, folder, monkeypatch):
    """What blocks of code print, one behind the other."""
    monkeypatch.chdir(folder)
    names = {}
    with redirect_stdout(StringIO()) as out:
        for code in codes:
            exec(code, names)
    return out.getvalue()


def test_the_curl_commands(folder, at_server, expected):
    commands = blocks("", "curl ")
    assert len(commands) >= 2
    for command in commands:
        found = subprocess.run(
            ["bash", "-e"], input=at_server(command), cwd=folder, capture_output=True, text=True, timeout=120
        )
        assert found.returncode == 0, found.stderr
        answer = json.loads(found.stdout)
        if QUESTION in command:
            assert answer["choices"][0]["message"]["content"] == expected["iava"]
        else:
            assert {"greedy", "iava", "vcd"} <= {card["name"] for card in answer["data"]}


def test_the_python_client(folder, at_server, expected, monkeypatch):
    codes = [at_server(code) for code in blocks("python", "client.chat.completions.create")]
    assert len(codes) == 2
    assert printed(codes, folder, monkeypatch) == f"{expected['vcd']}\n{expected['iava']}"


def test_the_exported_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (command,) = re.findall("^iava (export .*)$", PAGE, flags=re.MULTILINE)
    assert run(*shlex.split(command)).exit_code == 0
    alone = load("pocket").ask(folder / "photo.jpg", QUESTION, method="iava", alpha=0.5, max_new_tokens=64)
    code = blocks("python", "from_pretrained")
    assert printed(code, folder, monkeypatch).strip() == alone.text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_systemd_unit(tmp_path):
    (unit,) = blocks("ini", "[Service]")
    # The path of the program is replaced, because the program is not installed there.
    assert "/opt/iava/bin/iava " in unit
    (tmp_path / "iava.service").write_text(unit.replace("/opt/iava/bin/iava ", "/bin/true "))
    found = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "iava.service"], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stderr) == (0, "")

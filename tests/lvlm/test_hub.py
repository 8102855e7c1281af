"""Models from the Hub, which a small server on this machine plays."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from tests import modelhub

pytestmark = pytest.mark.slow

NAME = "someone/pocket-model"
WEIGHTS = Path(str(resources.files("iava.pocket") / "weights"))
CODE = """
import json, sys
import iava
from iava.pocket.scenes import load_scene
options = json.loads(sys.argv[1])
try:
    lvlm = iava.load(options.pop("name"), **options)
    answer = lvlm.ask(load_scene("test", 0).render(), "Is there a dog in the image?", max_new_tokens=4)
    print(json.dumps([answer.text, lvlm.revision]))
except iava.errors.IavaError as error:
    print(json.dumps(str(error)))
"""


def load(address, home, **options):
    """What a fresh process says: the Hub's address is read once, on import."""
    cleaned = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {**cleaned, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", CODE, json.dumps({"name": NAME, **options})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def served():
    with modelhub.hub(NAME, WEIGHTS) as found:
        yield found


def test_a_model_is_fetched_once_and_all_of_it_from_one_commit(served, tmp_path):
    address, fetched = served
    fetched.clear()
    first = load(address, tmp_path)
    assert first[1] == modelhub.COMMIT
    assert "model.safetensors" in {file for _, file in fetched}
    fetched.clear()
    assert load(address, tmp_path) == first
    assert fetched == []
    # Nobody is there to ask any more.
    assert load("http://127.0.0.1:1", tmp_path, local_files_only=True) == first


def test_a_revision_and_a_cache_of_ones_own(served, tmp_path):
    address, _ = served
    cache = tmp_path / "cache"
    text, commit = load(address, tmp_path / "home", revision="v1", cache_dir=str(cache))
    assert commit == modelhub.OLDER
    assert (cache / "models--someone--pocket-model").is_dir()
    assert not (tmp_path / "home" / "hub" / "models--someone--pocket-model" / "blobs").exists()
    assert load(address, tmp_path / "home", cache_dir=str(cache), revision=modelhub.OLDER)[0] == text
    said = load(address, tmp_path / "home", revision="v2")
    assert said.startswith(f"unknown model {NAME!r}: use 'pocket', a folder with a model, or the id of")


def test_a_private_model_needs_its_token(tmp_path):
    with modelhub.hub(NAME, WEIGHTS, token="hf_secret") as (address, _):
        said = load(address, tmp_path)
        assert said.startswith(f"unknown model {NAME!r}")
        assert load(address, tmp_path, token="hf_secret")[1] == modelhub.COMMIT
        said = load(address, tmp_path / "other", token="hf_wrong")
        assert said.startswith("unknown model")
        assert "hf_wrong" not in said


def test_a_name_that_the_hub_does_not_know(served, tmp_path):
    said = load(served[0], tmp_path, name="someone/else")
    assert said.startswith("unknown model 'someone/else'")
    said = load(served[0], tmp_path, local_files_only=True)
    assert said.startswith(f"unknown model {NAME!r}")

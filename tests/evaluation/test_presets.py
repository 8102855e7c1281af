"""The table of published settings, against the authors' commands in docs/papers.md."""

import json

import pytest

from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.errors import IavaError
from iava.evaluation.presets import LLAVA_SYSTEM, POPE_BENCHMARKS, ROWS, RUN, preset
from iava.methods import METHODS
from tests.commands import refused, run

RIVALS = ("vcd", "icd", "m3id", "avisc", "pai", "sid", "only")


def of(method, family, bench, **given):
    found = preset("published", [method], family, bench, given)
    return found.settings[method], {what: getattr(found, what) for what in RUN if getattr(found, what) is not None}


@pytest.mark.parametrize("family", ["llava", "instructblip", "pocket", "qwen2_vl"])
@pytest.mark.parametrize("bench", ["pope", "mme", "chair", "amber", "textvqa"])
def test_every_value_is_one_that_the_method_or_the_benchmark_takes(family, bench):
    for method in METHODS:
        settings, whole = of(method, family, bench)
        found = METHODS[method](**settings).settings()
        assert {key: found.get(key, False) for key in settings} == settings
        benchmark(bench).parser_name(whole.get("parser"))


def test_rows_name_methods_and_data_sets_that_exist():
    assert {row.method for row in ROWS} <= METHODS.keys()
    assert {name for row in ROWS for name in row.benchmarks} <= BENCHMARKS.keys()


def test_vcd_on_pope():
    settings, whole = of("vcd", "llava", "pope")
    assert settings == {"alpha": 1.0, "beta": 0.2, "step": 500, "noise_per": "question", "sampling": True}
    assert whole == {"prompt_style": "vcd", "system_prompt": LLAVA_SYSTEM, "max_new_tokens": 1024, "parser": "vcd"}
    settings, whole = of("vcd", "instructblip", "pope-gqa")
    assert (settings["alpha"], settings["beta"]) == (0.5, 0.1)
    assert whole == {"prompt_style": "vcd", "max_new_tokens": 256, "parser": "vcd"}
    # Their repository has no script for other benchmarks: the paper's settings are left.
    assert of("vcd", "llava", "mme") == (of("vcd", "qwen2_vl", "mme")[0], {})


def test_what_differs_by_benchmark():
    assert of("sid", "llava", "pope") == (
        {"early": 2, "keep": 100, "alpha": 0.5, "beta": 0.0},
        {"prompt_style": "plain", "parser": "opera", "max_new_tokens": 10, "system_prompt": ""},
    )
    assert of("sid", "llava", "chair")[0]["keep"] == 50
    assert [of("only", "llava", name)[0]["gamma"] for name in ("pope", "chair", "mme")] == [0.2, 0.25, 0.25]
    assert [of("only", "llava", name)[0]["beta"] for name in ("pope", "chair", "mme")] == [0.1, 0.1, 0.4]
    assert [of("m3id", "llava", name)[0]["offset"] for name in ("pope", "chair")] == [10, 0]
    pai = of("pai", "llava", "chair")[1]
    assert (pai["max_new_tokens"], pai["prompt_style"]) == (512, "pai")
    assert {of(method, "llava", "chair")[1]["prompt_style"] for method in ("sid", "only")} == {"plain"}


def test_what_differs_by_family():
    places = {family: of("icd", family, "pope")[0].get("place") for family in ("llava", "instructblip", "pocket")}
    assert places == {"llava": "system", "instructblip": "qformer-alone", "pocket": None}
    # 32 image tokens are fewer than the 100 that SID's code keeps.
    assert of("sid", "instructblip", "pope")[0] == {}
    for method in RIVALS:
        assert "system_prompt" not in of(method, "pocket", "pope")[1]


def test_methods_that_disagree_are_refused_by_name():
    with pytest.raises(IavaError, match="published prompt_style of vcd is 'vcd', that of pai 'plain': give --prompt-s"):
        preset("published", ["greedy", "vcd", "pai"], "pocket", "pope", {})
    given = {"prompt_style": "plain", "parser": "word", "max_new_tokens": 8}
    found = preset("published", ["greedy", "vcd", "pai"], "pocket", "pope", given)
    assert (found.prompt_style, found.parser, found.max_new_tokens) == (None, None, None)
    with pytest.raises(IavaError, match="unknown preset 'mine': use published"):
        preset("mine", ["vcd"], "llava", "pope", {})


def test_pai_asks_for_captions_in_its_own_words(tiny_folder, tmp_path):
    options = ["--model", tiny_folder, "--data", "pocket", "--limit", "1", "--max-new-tokens", "2"]
    options += ["--preset", "published", "--methods", "greedy,pai", "--out", str(tmp_path / "run")]
    run("eval", "chair", *options, "--set", "pai.start=0")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["settings"]["prompt_style"] == "pai"
    assert "<image> Please help me describe the image in detail. ASSISTANT" in manifest["prompt"]
    records = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    asked = {json.loads(line)["question"] for line in records}
    assert asked == {"Please help me describe the image in detail."}


@pytest.mark.slow
def test_a_run_takes_them_over(tiny_folder, tmp_path):
    options = ["--model", tiny_folder, "--data", "pocket", "--limit", "1", "--preset", "published"]
    run("eval", "pope", *options, "--methods", "sample,vcd", "--out", str(tmp_path / "run"))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    settings = manifest["settings"]
    assert settings["methods"]["vcd"]["beta"] == 0.2
    assert settings["methods"]["vcd"]["sampling"] is True
    assert [settings[what] for what in RUN] == ["vcd", LLAVA_SYSTEM, 1024, "vcd"]
    assert manifest["prompt"].startswith(f"SYSTEM : {LLAVA_SYSTEM} USER : <image> ")
    assert "Please answer this question with one word. ASSISTANT :" in manifest["prompt"]


def test_options_take_precedence(tiny_folder, tmp_path):
    options = ["--model", tiny_folder, "--data", "pocket", "--limit", "1", "--preset", "published"]
    options += ["--parser", "word", "--max-new-tokens", "3", "--set", "vcd.beta=0.4", "--system-prompt", "See ."]
    run("eval", "pope", *options, "--methods", "greedy,vcd", "--out", str(tmp_path / "run"))
    settings = json.loads((tmp_path / "run" / "manifest.json").read_text())["settings"]
    assert settings["methods"]["vcd"]["beta"] == 0.4
    assert [settings[what] for what in RUN] == ["vcd", "See .", 3, "word"]


def test_an_unknown_preset_is_one_line(tmp_path):
    options = ["--limit", "1", "--preset", "mine", "--out", str(tmp_path / "run")]
    assert refused("eval", "pope", *options) == "iava: error: unknown preset 'mine': use published\n"


def test_every_rival_has_rows():
    assert {row.method for row in ROWS} == {*RIVALS, "iava"}
    assert "pope" in POPE_BENCHMARKS

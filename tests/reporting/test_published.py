"""Published results appear beside runs of the same model and data, and otherwise as context only."""

import json
from importlib.resources import files

from iava.reporting.published import published_model, published_table
from tests.reporting.test_tables import cells, row

COCO = [{"image": "COCO_val2014_000000000042.jpg"}]
POCKET = [{"image": "test-00007"}]
ROWS = [row("greedy", "random", {"accuracy": 0.885}), row("greedy", "overall", {"accuracy": 0.87})]


def settings(model, benchmark="pope", **more):
    return {"benchmark": benchmark, "model": model, "parser": "word", **more}


def test_the_same_model_and_data():
    table, same = published_table(settings("llava-hf/llava-1.5-7b-hf"), ROWS, COCO)
    assert same
    assert "beside this run" in table.title
    assert list(table.headings)[:3] == ["Decoding", "Prompt", "Parser"]
    assert [cell.text for cell in table.rows[0].cells] == ["greedy", "plain", "word", "88.5", "", "", ""]
    assert table.rows[0].tag == "this run"
    assert cells(table)["unmodified"] == [*["not stated"] * 3, "88.5", "87.3", "85.2", "[2]"]
    assert cells(table)["AvisC"][:3] == ["sampled", "plain", "opera"]
    assert "[2] a user's evaluation" in table.note
    assert published_table(settings("llava-hf/llava-1.5-7b-hf", "chair"), ROWS, COCO) is None


def test_the_runs_own_row_says_how_it_was_asked():
    told = settings("llava-v1.5-7b", parser="vcd", prompt_style="vcd", suffix="Now.", system_prompt="A chat.")
    table, _ = published_table(told, [row("sample", "random", {"accuracy": 0.83}, draws=True)], COCO)
    assert [cell.text for cell in table.rows[0].cells][:3] == ["sampled", "vcd, Now., system prompt", "vcd"]


def test_the_pocket_model_gets_context_only():
    table, same = published_table(settings("pocket"), ROWS, POCKET)
    assert not same
    assert table.title == "For context only: published results of LLaVA-1.5-7B on COCO"
    assert "not comparable" in table.note
    assert all(row.tag != "this run" for row in table.rows)
    # A published model was not tested on pocket scenes.
    assert published_table(settings("llava-hf/llava-1.5-7b-hf"), ROWS, POCKET)[1] is False


def test_an_unknown_model_has_no_published_results():
    assert published_table(settings("somebody/model"), ROWS, COCO) is None
    assert published_model("/models/LLaVA-1.5-7B-HF/") == "LLaVA-1.5-7B"
    assert published_model("llava-hf/llava-1.5-13b-hf") is None


def test_every_result_has_a_source_and_a_model():
    data = json.loads((files("iava.reporting") / "published.json").read_text())
    for entry in data["rows"]:
        assert entry["source"] in data["sources"]
        assert entry["model"] in data["models"]
        assert all(entry[name] for name in ("decoding", "prompt", "parser"))
        assert entry["values"]
        assert all(0 < value <= (2000 if entry["data"] == "mme" else 100) for value in entry["values"].values())
    totals = [entry["values"] for entry in data["rows"] if "existence" in entry["values"]]
    # The printed totals are means over seeds, rounded separately.
    assert all(abs(sum(v.values()) - 2 * v["hallucination"]) < 0.05 for v in totals)

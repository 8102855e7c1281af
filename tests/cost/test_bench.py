"""Costs are counted exactly, written, printed and plotted; the naive baseline answers like IAVA."""

import json
import statistics
from types import SimpleNamespace

import pytest
import torch

from iava import IAVA
from iava.cost import bench as cost
from iava.cost import shapes
from iava.cost.baselines import naive
from iava.cost.contenders import Bench
from iava.cost.plan import CostPlan, Workload
from iava.cost.report import read_results
from iava.metrics.memory import peak, weights
from tests.commands import refused, run
from tools import cost as script

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CPU = torch.device("cpu")


def tiny_llava(device=CPU, dtype=torch.float32):
    text = {**TINY, "hidden_size": 32, "vocab_size": 128, "max_position_embeddings": 256}
    return spread(shapes.llava(TINY, text, image_size=42, device=device, dtype=dtype))


def tiny_instructblip(device=CPU, dtype=torch.float32):
    text = {**TINY, "hidden_size": 32, "vocab_size": 128, "max_position_embeddings": 256}
    qformer = {**TINY, "vocab_size": 128}
    return spread(shapes.instructblip(TINY, qformer, text, image_size=42, device=device, dtype=dtype))


def spread(lvlm):
    """Larger random weights, with which attention is peaked and answers differ."""
    torch.manual_seed(2)
    for weight in lvlm.model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.35)
    return lvlm


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", tiny_llava)


def plan(**settings):
    return CostPlan(**{"shape": "small", "methods": ["greedy"], **settings})


@pytest.mark.parametrize("build", [tiny_llava, tiny_instructblip])
def test_the_naive_baseline_answers_like_iava(build):
    bench = Bench(build(), plan(methods=["iava:zeros"]))
    model, general = bench.model, bench.inputs(2, "Describe this image.")
    seen = set()
    for question in shapes.QUESTIONS[:3]:
        inputs = bench.inputs(2, question)
        expected = model.generate(**inputs, custom_generate=bench.methods["iava:zeros"], max_new_tokens=6)
        found = naive(model, inputs, general, 6)
        assert found.tolist() == expected[:, inputs["input_ids"].shape[1] :].tolist()
        plain = model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        seen |= {(found.tolist() == plain.tolist()), tuple(found[0].tolist())}
    assert model.config._attn_implementation == model.get_decoder().config._attn_implementation == "sdpa"
    # The agreement is not trivial: the contrast changes answers, and answers differ.
    assert False in seen
    assert len(seen) > 2


@pytest.mark.slow
def test_measurements_are_written_printed_and_plotted(tiny, tmp_path):
    options = ["--methods", "greedy,iava:hide", "--baseline", "naive", "--tokens", "1,3", "--questions", "1,2"]
    options += ["--batch", "2", "--repeats", "3", "--device", "cpu"]
    result = run("bench", "--shape", "tiny", *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "cost.json").read_text())
    parameters = sum(weight.numel() for weight in tiny_llava().model.parameters())
    assert found["finished"]
    assert found["command"] == "iava bench --shape tiny " + " ".join([*options[:2], *options[4:], *options[2:4]])
    assert found["settings"]["methods"]["iava:hide"]["negative"] == "hide"
    assert found["model"]["bytes"] >= 4 * found["model"]["parameters"] == 4 * parameters
    assert {"processor", "threads", "device", "dtype", "cores", "load_before", "load_after"} <= set(found["machine"])
    assert {"iava", "torch", "transformers", "python"} <= set(found["versions"])
    cells = {(c["tokens"], c["questions"], c["batch"], c["contender"]): c for c in found["cells"]}
    assert list(cells) == [
        (tokens, questions, 2, contender)
        for tokens in (1, 3)
        for questions in (1, 2)
        for contender in ("generate", "greedy", "iava:hide", "naive")
    ]
    for (tokens, questions, batch, contender), cell in cells.items():
        plain = cells[tokens, questions, batch, "generate"]
        assert cell["error"] is None
        assert len(cell["seconds"]) == 3
        assert cell["time"][1] == statistics.median(cell["seconds"])
        ratios = [ours / theirs for ours, theirs in zip(cell["seconds"], plain["seconds"], strict=True)]
        assert cell["time_ratio"][1] == pytest.approx(statistics.median(ratios))
        assert cell["time_ratio"][0] <= cell["time_ratio"][1] <= cell["time_ratio"][2]
        assert cell["peak_ratio"] == pytest.approx(cell["peak"] / plain["peak"])
        assert cell["peak"] > found["model"]["bytes"]
        assert ("kept" in cell) == (contender == "iava:hide" and questions == 1)
    before, image, after, general = 35, 9, 18, 6
    whole = before + image + after
    columns = {key: (cell["decoder_columns"], cell["images_read"]) for key, cell in cells.items()}
    assert columns[1, 1, 2, "generate"] == columns[1, 1, 2, "greedy"] == (2 * whole, 2)
    assert columns[3, 1, 2, "generate"] == (2 * (whole + 2), 2)
    assert columns[1, 1, 2, "iava:hide"] == (2 * (whole + general + after), 2)
    assert columns[3, 1, 2, "iava:hide"] == (2 * (whole + general + after + 2 * 2), 2)
    assert columns[1, 1, 2, "naive"] == (2 * (3 * whole + before + image + general), 8)
    assert columns[1, 2, 2, "generate"] == (4 * whole, 4)
    assert columns[1, 2, 2, "greedy"] == (2 * (before + image + 2 * after), 2)
    assert columns[1, 2, 2, "iava:hide"] == (2 * (before + image + 2 * after + general + 2 * after), 2)
    assert (tmp_path / "out" / "cost.png").read_bytes().startswith(b"\x89PNG")
    printed = run("bench", "--table", tmp_path / "out" / "cost.json")
    assert printed.exit_code == 0
    assert printed.stdout in result.stdout
    lines = [line for line in printed.stdout.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(cells)
    assert len({line.count("|") for line in lines}) == 1
    again = refused("bench", "--shape", "tiny", "--device", "cpu", "--out", tmp_path / "out")
    assert "already holds a measurement" in again


def test_a_failure_of_one_contender_does_not_end_the_others(tiny, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(IAVA, "branches", full)
    chosen = CostPlan("tiny", ["iava:zeros", "apc"], tokens=[1], questions=[1], batch=[1], repeats=1, device="cpu")
    found = cost.measure(chosen, tmp_path)
    assert [cell["error"] for cell in found["cells"]] == [None, "out of memory", None]
    assert found["cells"][1].keys() == {"tokens", "questions", "batch", "contender", "error"}
    assert "| out of memory |" in run("bench", "--table", tmp_path / "cost.json").stdout


def test_measurements_before_a_kill_are_kept(tiny, tmp_path, monkeypatch):
    calls = iter(range(100))
    measure_workload = cost.measure_workload

    def killed(*args):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return measure_workload(*args)

    monkeypatch.setattr(cost, "measure_workload", killed)
    chosen = CostPlan("tiny", ["greedy"], tokens=[1, 2], questions=[1], batch=[1], repeats=1, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        cost.measure(chosen, tmp_path)
    found = read_results(tmp_path / "cost.json")
    assert (found["finished"], [cell["tokens"] for cell in found["cells"]]) == (False, [1, 1])
    assert "stopped before the end" in run("bench", "--table", tmp_path / "cost.json").stdout


def test_peak_is_the_memory_alive_at_once():
    kept = torch.zeros(1000)

    def work():
        one = torch.zeros(250_000)
        two = torch.zeros(500_000)
        del one
        three = torch.zeros(125_000)
        return float(two[0] + three[0] + kept[0])

    most, result = peak(work, CPU)
    # At most one and two million bytes at once, besides sums of single numbers; later two and a half million.
    assert 3_000_000 <= most < 3_001_000
    assert result == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["iava:zeros", "iava+:zeros", "avisc", "sid", "iava:drop", "iava:hide"])
def test_six_questions_take_at_most_half_more_memory_than_one(method):
    # As in the shape `small`, the weights hold as many bytes as the keys and values of six prompts.
    text = {**TINY, "hidden_size": 160, "intermediate_size": 430, "num_hidden_layers": 12}
    text |= {"vocab_size": 128, "max_position_embeddings": 256}
    lvlm = shapes.llava(TINY, text, image_size=140, device=CPU, dtype=torch.float32)
    assert 6 < weights(lvlm.model) / (153 * 12 * 2 * 160 * 4) < 7
    bench = Bench(lvlm, plan(methods=[method]))
    one, six = (peak(bench.work(name, Workload(8, 6, 1)), CPU)[0] for name in ("generate", method))
    assert weights(lvlm.model) + six <= 1.5 * (weights(lvlm.model) + one)


def test_weights_are_counted_in_bytes():
    assert weights(torch.nn.Linear(3, 4).half()) == 2 * (12 + 4)


@pytest.mark.parametrize(
    ("name", "millions", "image_tokens"),
    [("small", (46.5, 48), 576), ("llava-1.5-7b", (7060, 7070), 576), ("instructblip-7b", (7900, 7930), 32)],
)
def test_shapes_have_the_size_and_prompt_of_the_models(name, millions, image_tokens):
    lvlm = shapes.SHAPES[name](torch.device("meta"), torch.float16)
    assert {weight.dtype for weight in lvlm.model.parameters()} == {torch.float16}
    assert torch.get_default_dtype() == torch.float32
    low, high = millions
    assert low < sum(weight.numel() for weight in lvlm.model.parameters()) / 1e6 < high
    for question in shapes.QUESTIONS:
        made = lvlm.processor(text=[lvlm.prompt(question)], images=[shapes.noise_image(0)], return_tensors="pt")
        ids = made["input_ids"][0].tolist()
        image = [place for place, token in enumerate(ids) if token == lvlm.model.config.image_token_id]
        assert len(image) == image_tokens
        # LLaVA's template ends with "ASSISTANT:"; InstructBLIP's prompt is the question alone.
        assert (image[0], len(ids) - 1 - image[-1]) in (
            [(35, 18), (35, 19)] if image_tokens > 32 else [(0, 16), (0, 17)]
        )
        assert 3 not in ids


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works(dtype):
    bench = Bench(tiny_llava(dtype=dtype), plan(methods=["iava:drop"]))
    for contender in bench.contenders:
        assert bench.work(contender, Workload(2, 1, 1))().shape[1] > 2


def test_the_script_measures_each_part(tiny, tmp_path, monkeypatch):
    def here(command, **_options):
        result = run(*command[3:], *([] if "--table" in command else ["--repeats", "1"]))
        return SimpleNamespace(returncode=result.exit_code, stdout=result.stdout)

    monkeypatch.setattr(script.subprocess, "run", here)
    small = [*script.sizes("1"), "--methods", "greedy"]
    parts = {"bad": ["--shape", "unknown", *small], "tiny": ["--shape", "tiny", *small, "--baseline", "naive"]}
    monkeypatch.setitem(script.PARTS, "cpu", parts)
    assert script.main("cpu", tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tables.md", "tiny"]
    assert "## tiny" in (tmp_path / "tables.md").read_text()
    assert "`naive`" in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"--shape": "huge"}, "unknown shape 'huge': use one of small, pocket, llava-1.5-7b, instructblip-7b"),
        ({"--methods": "vodoo"}, "unknown method 'vodoo'"),
        ({"--methods": "greedy:hide"}, "method greedy has no setting 'negative'"),
        ({"--methods": "iava:seek"}, "negative is 'seek': it must be one of zeros, drop, hide, pixels"),
        ({"--methods": "greedy,greedy"}, "methods is 'greedy,greedy'"),
        ({"--methods": ""}, "no method is named"),
        ({"--baseline": "nobody"}, "unknown baseline 'nobody': use one of naive, mitigv:vcd, mitigv:icd"),
        ({"--peer": "nobody"}, "unknown baseline 'nobody'"),
        ({"--tokens": "1,x"}, "tokens is '1,x': it must be a list of whole numbers"),
        ({"--tokens": "0"}, "tokens is '0': it must be different numbers of at least 1"),
        ({"--batch": "2,2"}, "batch is '2,2'"),
        ({"--questions": "7"}, "questions is '7': each number must be at most 6"),
        ({"--repeats": "0"}, "repeats is 0: it must be at least 1"),
        ({"--dtype": "int8"}, "dtype is 'int8': use one of float32, float16, bfloat16"),
        ({"--device": "toaster"}, "device is 'toaster': it must be a device of torch, such as cpu, cuda or cuda:1"),
        ({"--device": "meta"}, "device is 'meta': the bench measures on cpu or cuda"),
        ({"--table": "nowhere.json"}, "name either a new folder to measure into"),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(tiny, tmp_path, options, complaint):
    given = {"--shape": "tiny", "--device": "cpu", **options, "--out": tmp_path / "out"}
    assert complaint in refused("bench", *(part for pair in given.items() for part in pair))
    assert not (tmp_path / "out").exists()


def test_files_without_a_measurement_are_refused(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    assert "holds no measurement" in refused("bench", "--table", tmp_path / "other.json")
    assert "cannot read" in refused("bench", "--table", tmp_path / "nowhere.json")


def test_a_baseline_that_is_not_installed_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("iava.cost.baselines.find_spec", lambda _name: None)
    said = refused("bench", "--shape", "tiny", "--device", "cpu", "--baseline", "mitigv:pai", "--out", tmp_path / "out")
    assert "the package mitigv is not installed: install mitigv==0.1.7" in said


@pytest.mark.slow
def test_compiled_steps_are_measured(tiny, tmp_path):
    options = ["--methods", "iava:hide", "--tokens", "3", "--questions", "1", "--batch", "1", "--repeats", "1"]
    result = run("bench", "--shape", "tiny", *options, "--compile", "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    plain, hide = json.loads((tmp_path / "out" / "cost.json").read_text())["cells"]
    assert (plain["error"], hide["error"]) == (None, None)
    # Plain `generate`: the prompt and two steps. IAVA: two runs for the first token.
    assert hide["decoder_passes"] == plain["decoder_passes"] + 1

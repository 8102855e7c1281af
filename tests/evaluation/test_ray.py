"""A run on two Ray actors on this machine, one of which is killed, has the records of a run without Ray."""

import json
import os
import signal
import sys
from functools import partial
from importlib.util import find_spec

import pytest
from PIL import Image

from iava.evaluation.plan import Plan
from iava.evaluation.runner import evaluate
from tests.commands import refused, run
from tests.evaluation.test_runner import by_key, lines
from tests.fakes import FakeLVLM

METHODS = {"greedy": {}, "sample": {}, "bias": {}, "iava": {"alpha": 0.5}}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Six questions about each of twelve small pictures, as POPE publishes them."""
    data = tmp_path_factory.mktemp("data")
    (data / "pope" / "images").mkdir(parents=True)
    rows = []
    for i in range(12):
        Image.new("RGB", (32, 32), (20 * i, 0, 0)).save(data / "pope" / "images" / f"{i}.png")
        for thing in ("dog", "cow", "cup", "tree", "car", "pig"):
            asked = {"image": f"{i}.png", "text": f"Is there a {thing} in the image?", "label": "yes"}
            rows.append(json.dumps({"question_id": len(rows), **asked}))
    (data / "pope" / "random.json").write_text("\n".join(rows))
    return Plan("fake", METHODS, data=data, tune_images=3)


def test_without_ray_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "iava.evaluation.ray_engine", raising=False)
    said = refused("eval", "pope", "--limit", "1", "--engine", "ray", "--out", tmp_path / "out")
    assert "--engine ray needs Ray: install it with pip install 'iava[ray]'" in said
    assert "use local or ray" in refused("eval", "pope", "--engine", "rya", "--out", tmp_path / "out")
    assert "only --engine ray has workers" in refused("eval", "pope", "--workers", "2", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


of_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'iava[ray]'")


@pytest.fixture(scope="module")
def cluster():
    import ray

    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


class Dying(FakeLVLM):
    """Kills the process it is in, once, in the middle of an image's questions."""

    def ask_many(self, image, questions, **more):
        answers = super().ask_many(image, questions, **more)
        if len(self.asked) > 100 and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return answers


def dying(mark, _):
    made = Dying()
    made.mark = mark
    return made


def fake(_):
    return FakeLVLM()


def unknown(name):
    raise ValueError(f"unknown model {name!r}")


@of_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_work_of_a_killed_actor_is_done_again(tmp_path, plan):
    from iava.evaluation.ray_engine import evaluate_with_ray

    told = []
    results = evaluate_with_ray(
        plan, tmp_path / "ray", lambda *some: told.append(some), loaded=partial(dying, tmp_path / "killed")
    )
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    expected = evaluate(FakeLVLM(), plan, tmp_path / "local")
    for name in ("records.jsonl", "tune-records.jsonl"):
        records = lines(tmp_path / "ray", name)
        assert by_key(records) == by_key(lines(tmp_path / "local", name))
        assert len(records) == len(by_key(records))
    assert results["rows"] == expected["rows"]
    assert results["manifest"]["settings"] == expected["manifest"]["settings"]
    assert (results["manifest"]["engine"], results["manifest"]["workers"]) == ("ray", 2)
    assert results["manifest"]["command"] == expected["manifest"]["command"]
    whole = len(plan.task.questions) * len(METHODS)
    assert told[-1][1:] == (whole, whole)
    # Neither engine asks again what the other recorded.
    lvlm = FakeLVLM()
    assert evaluate(lvlm, plan, tmp_path / "ray")["rows"] == expected["rows"]
    assert lvlm.asked == []


@of_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_it_goes_on_with_what_another_run_left(tmp_path, plan):
    from iava.evaluation.ray_engine import evaluate_with_ray

    out = tmp_path / "run"
    expected = evaluate(FakeLVLM(), plan, out)
    left = (out / "records.jsonl").read_text().splitlines(keepends=True)
    whole = lines(out)
    # Killed in the middle of an image, and of a line.
    (out / "records.jsonl").write_text("".join(left[:101]) + left[101][:20])
    (out / "results.json").unlink()
    told = []
    results = evaluate_with_ray(plan, out, lambda *some: told.append(some), loaded=fake)
    assert lines(out)[:101] == whole[:101]
    assert by_key(lines(out)) == by_key(whole)
    assert len(lines(out)) == len(whole)
    assert results["rows"] == expected["rows"]
    assert (plan.task.split, 101) in [(name.split()[-1], done) for name, done, _ in told]


@of_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_what_is_wrong_is_said_in_one_line(tmp_path, plan):
    from iava.evaluation.ray_engine import evaluate_with_ray

    with pytest.raises(ValueError, match=r"^unknown model 'fake'$"):
        evaluate_with_ray(plan, tmp_path / "out", loaded=unknown)
    with pytest.raises(ValueError, match="workers is 3: there are 2 CPUs, and each needs one"):
        evaluate_with_ray(plan, tmp_path / "out", workers=3)
    with pytest.raises(ValueError, match="workers is 0"):
        evaluate_with_ray(plan, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


@of_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_command_line_gives_the_local_runs_answers(tmp_path, plan):
    arguments = ("eval", "pope", "--data", plan.data, "--limit", "2", "--methods", "greedy,sample,iava")
    result = run(*arguments, "--engine", "ray", "--workers", "2", "--out", tmp_path / "ray")
    assert result.exit_code == 0, result.output
    assert run(*arguments, "--out", tmp_path / "local").exit_code == 0
    assert by_key(lines(tmp_path / "ray")) == by_key(lines(tmp_path / "local"))

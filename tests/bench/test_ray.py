"""A run on two Ray actors on this machine, one of which is killed, has the records of a run without Ray."""

import os
import signal
import sys
from functools import partial
from importlib.util import find_spec

import pytest

from iava.bench.runner import Plan, evaluate
from tests.bench.fakes import FakeLVLM
from tests.bench.test_runner import by_key, lines
from tests.commands import refused, run

METHODS = {"greedy": {}, "sample": {}, "bias": {}, "iava": {"alpha": 0.5}}
PLAN = Plan("fake", METHODS, split="tune-heldout", limit=12, tune_images=3)


def test_without_ray_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "iava.bench.ray_engine", raising=False)
    said = refused("eval", "pope", "--limit", "1", "--engine", "ray", "--out", tmp_path / "out")
    assert "--engine ray needs Ray: install it with pip install 'iava[ray]'" in said
    assert "use local or ray" in refused("eval", "pope", "--engine", "rya", "--out", tmp_path / "out")
    assert "only --engine ray has any" in refused("eval", "pope", "--workers", "2", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def of_ray(test):
    return pytest.mark.ray(pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")(test))


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


def unknown(name):
    raise ValueError(f"unknown model {name!r}")


@of_ray
@pytest.mark.usefixtures("cluster")
def test_the_work_of_a_killed_actor_is_done_again(tmp_path):
    from iava.bench.ray_engine import evaluate_with_ray

    told = []
    results = evaluate_with_ray(
        PLAN, tmp_path / "ray", lambda *some: told.append(some), loaded=partial(dying, tmp_path / "killed")
    )
    assert int((tmp_path / "killed").read_text()) != os.getpid()
    expected = evaluate(FakeLVLM(), PLAN, tmp_path / "local")
    for name in ("records.jsonl", "tune-records.jsonl"):
        records = lines(tmp_path / "ray", name)
        assert by_key(records) == by_key(lines(tmp_path / "local", name))
        assert len(records) == len(by_key(records))
    assert results["rows"] == expected["rows"]
    assert results["manifest"]["settings"] == expected["manifest"]["settings"]
    assert (results["manifest"]["engine"], results["manifest"]["workers"]) == ("ray", 2)
    assert results["manifest"]["command"] == expected["manifest"]["command"]
    whole = len(PLAN.task.questions) * len(METHODS)
    assert told[-1][1:] == (whole, whole)
    # Neither engine asks again what the other recorded.
    lvlm = FakeLVLM()
    assert evaluate(lvlm, PLAN, tmp_path / "ray")["rows"] == expected["rows"]
    assert lvlm.asked == []


@of_ray
@pytest.mark.usefixtures("cluster")
def test_what_is_wrong_is_said_in_one_line(tmp_path):
    from iava.bench.ray_engine import evaluate_with_ray

    with pytest.raises(ValueError, match=r"^unknown model 'fake'$"):
        evaluate_with_ray(PLAN, tmp_path / "out", loaded=unknown)
    with pytest.raises(ValueError, match="workers is 3: there are 2 CPUs, and each needs one"):
        evaluate_with_ray(PLAN, tmp_path / "out", workers=3)
    with pytest.raises(ValueError, match="workers is 0"):
        evaluate_with_ray(PLAN, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


@of_ray
@pytest.mark.usefixtures("cluster")
def test_the_command_line_gives_the_local_runs_answers(tmp_path):
    arguments = ("eval", "pope", "--limit", "2", "--methods", "greedy,sample,iava")
    result = run(*arguments, "--engine", "ray", "--workers", "2", "--out", tmp_path / "ray")
    assert result.exit_code == 0, result.output + str(result.exception)
    assert run(*arguments, "--out", tmp_path / "local").exit_code == 0
    assert by_key(lines(tmp_path / "ray")) == by_key(lines(tmp_path / "local"))

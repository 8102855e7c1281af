"""Runs on many GPUs or machines with Ray (the extra `ray`). Each actor holds a model and answers some of the images.

The records equal those of `iava.evaluation.runner.evaluate`. They stand in the order in which images are finished.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from iava.benchmarks.task import Unit
from iava.errors import IavaError
from iava.evaluation.environment import command
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records
from iava.evaluation.runner import Advance, Missing, answer_unit, describe, evaluate_by
from iava.lvlm.loading import load
from iava.lvlm.model import LVLM
from iava.metrics.parts import Record

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
    from ray.util import ActorPool
except ImportError:
    raise IavaError("--engine ray needs Ray: install it with pip install 'iava[ray]'") from None

Settings = Mapping[str, Any]
LIVES = 3
"""How often an actor is restarted, and an image's work repeated, before the run ends."""


class RayWorker:
    """An actor: a model that it loads when it is needed, and a plan whose images it opens itself."""

    def __init__(self, plan: Plan, loaded: Callable[[str], LVLM]) -> None:
        self._plan, self._load = plan, loaded

    @cached_property
    def _lvlm(self) -> LVLM:
        return self._load(self._plan.model)

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return describe(self._lvlm, self._plan)

    def answer(self, part: str, unit: Unit, methods: Mapping[str, Settings]) -> list[Record]:
        made = [self._lvlm.method(name, **settings) for name, settings in methods.items()]
        lists = answer_unit(self._lvlm, getattr(self._plan, part), unit, made, self._plan)
        return [record for answers in lists for record in answers]


def evaluate_with_ray(
    plan: Plan,
    folder: Path,
    advance: Advance = lambda *_: None,
    *,
    workers: int | None = None,
    loaded: Callable[[str], LVLM] = load,
) -> dict[str, Any]:
    """Runs a plan, or the rest of it, on the cluster that RAY_ADDRESS or `ray start` names, or on this machine.

    Ray replaces an actor that is lost. The new actor repeats the lost work.

    Args:
        plan: every machine must be able to read its data under the same path.
        folder: of the run, on this machine.
        workers: number of actors; None: one for each GPU of the cluster, or for each CPU core if it has no GPU.
        loaded: loads an actor's model by the plan's name of it.

    Returns:
        As `iava.evaluation.runner.evaluate`.

    Raises:
        IavaError: as `evaluate`, if there are fewer GPUs than workers, or the actors are lost again and again.
    """
    if workers is not None and workers < 1:
        raise IavaError(f"workers is {workers}: it must be at least 1")
    ours = not ray.is_initialized()
    # A cluster of our own reports no usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
    try:
        actors = _actors(plan, workers, loaded)
        pool, workers = ActorPool(actors), len(actors)
        settings, about = ray.get(actors[0].describe.remote())
        about |= {"command": command(), "engine": "ray", "workers": workers}

        def ask(
            part: str, methods: Mapping[str, Settings], records: Records, report: Callable[[int, int], None]
        ) -> None:
            missing = Missing(getattr(plan, part), list(methods), records)
            report(*missing.progress)
            work = [(part, unit, {name: methods[name] for name in names}) for unit, names in missing.units()]
            for answers in pool.map_unordered(lambda actor, one: actor.answer.remote(*one), work):
                missing.add(answers)
                report(*missing.progress)

        return evaluate_by(ask, (settings, about), plan, folder, advance)
    except RayTaskError as error:
        # The actor's own error, without the trace of how it came here.
        raise error.cause from None
    except RayActorError:
        raise IavaError(
            f"an actor was lost more than {LIVES} times (is its memory too small?): the same command goes on"
        ) from None
    finally:
        if ours:
            ray.shutdown()


def _actors(plan: Plan, workers: int | None, loaded: Callable[[str], LVLM]) -> list[Any]:
    there = ray.cluster_resources()
    kind = "GPU" if there.get("GPU", 0) >= 1 else "CPU"
    most = int(there.get(kind, 0))
    wanted = workers or most
    if wanted > most:
        raise IavaError(f"workers is {wanted}: there are {most} {kind}s, and each needs one")
    made = ray.remote(RayWorker).options(
        num_gpus=int(kind == "GPU"), num_cpus=1, max_restarts=LIVES, max_task_retries=LIVES
    )
    # A plan without the questions that it has read: the actors read them on their own machines.
    bare = replace(plan, data=plan.data and plan.data.absolute())
    return [made.remote(bare, loaded) for _ in range(wanted)]

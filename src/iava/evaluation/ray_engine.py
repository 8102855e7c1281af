"""Runs on many GPUs or machines with Ray (the extra `ray`): actors hold the model, images are shared out among them.

The records are those of `iava.evaluation.runner.evaluate`, in the order in which images are finished.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.evaluation.records import Record, Records, command
from iava.evaluation.runner import Advance, Missing, Plan, answer_image, describe, evaluate_by
from iava.lvlm.loading import load
from iava.lvlm.model import LVLM

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
    from ray.util import ActorPool
except ImportError:
    raise IavaError("--engine ray needs Ray: install it with pip install 'iava[ray]'") from None

Settings = Mapping[str, Any]
LIVES = 3
"""How often an actor is started anew, and an image's work done again, before the run ends."""


class Worker:
    """What an actor is: a model that is loaded when it is needed, and a plan whose images it opens itself."""

    def __init__(self, plan: Plan, loaded: Callable[[str], LVLM]) -> None:
        self._plan, self._load = plan, loaded

    @cached_property
    def _lvlm(self) -> LVLM:
        return self._load(self._plan.model)

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return describe(self._lvlm, self._plan)

    def answer(self, part: str, image: str, methods: Mapping[str, Settings]) -> list[Record]:
        made = [self._lvlm.method(name, **settings) for name, settings in methods.items()]
        lists = answer_image(self._lvlm, getattr(self._plan, part), image, made, self._plan)
        return [record for answers in lists for record in answers]


def evaluate_with_ray(
    plan: Plan,
    folder: Path,
    advance: Advance = lambda *_: None,
    *,
    workers: int | None = None,
    loaded: Callable[[str], LVLM] = load,
) -> dict[str, Any]:
    """Runs a plan, or what is left of it, on the cluster that RAY_ADDRESS or `ray start` names, or on this machine.

    The work of an actor that is lost is done again by one that Ray starts in its place.

    Args:
        plan: its data must be readable on every machine under the same path.
        folder: on this machine.
        workers: how many actors; None: one for each GPU of the cluster, or for each CPU core where there is none.
        loaded: gives an actor its model by the plan's name of it.

    Returns:
        As `iava.evaluation.runner.evaluate`.

    Raises:
        IavaError: as `evaluate`, if there are fewer GPUs than workers, or the actors are lost again and again.
    """
    if workers is not None and workers < 1:
        raise IavaError(f"workers is {workers}: it must be at least 1")
    ours = not ray.is_initialized()
    # A cluster of our own tells nobody that it is there.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
    try:
        actors = _actors(plan, workers, loaded)
        pool, workers = ActorPool(actors), len(actors)
        settings, about = ray.get(actors[0].describe.remote())
        about |= {"command": command(), "engine": "ray", "workers": workers}

        def ask(part: str, methods: Mapping[str, Settings], records: Records, told: Callable[[int, int], None]) -> None:
            missing = Missing(getattr(plan, part), list(methods), records)
            told(*missing.progress)
            units = ((part, image, {name: methods[name] for name in names}) for image, names in missing.images())
            for answers in pool.map_unordered(lambda actor, unit: actor.answer.remote(*unit), list(units)):
                missing.add(answers)
                told(*missing.progress)

        return evaluate_by(ask, (settings, about), plan, folder, advance)
    except RayTaskError as error:
        # What went wrong in the actor, without the trace of how it came here.
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
    made = ray.remote(Worker).options(
        num_gpus=int(kind == "GPU"), num_cpus=1, max_restarts=LIVES, max_task_retries=LIVES
    )
    # A plan without what it has read: the actors read for themselves, wherever they run.
    bare = replace(plan, data=plan.data and plan.data.absolute())
    return [made.remote(bare, loaded) for _ in range(wanted)]

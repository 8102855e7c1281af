"""The cost of methods relative to plain greedy `generate`: time, peak memory, work and counts.

All contenders run in one process and take turns, so that a change of the machine's load affects all of them.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from iava.cost.contenders import PLAIN, Bench, counted_work
from iava.cost.counts import count_tokens
from iava.cost.plan import CostPlan, Workload
from iava.cost.shapes import SHAPES
from iava.errors import IavaError
from iava.evaluation.environment import environment
from iava.evaluation.records import write_json
from iava.evaluation.runner import Advance
from iava.files import check_folder
from iava.lvlm.loading import find_device
from iava.lvlm.model import out_of_memory
from iava.methods.trace import Trace
from iava.metrics.memory import peak, weights

RESULTS = "cost.json"

Measurement = dict[str, Any]


def measure(plan: CostPlan, out: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures a plan. Writes `out`/cost.json after each workload.

    Returns:
        The content of the file: "command", "settings", "model", "versions", "git", "machine", "started", "finished",
        "cells", a measurement for each workload and contender (see `_measurement`), and "counts", for each number of
        images and each contender what `count_tokens` returns, or "error".

    Raises:
        IavaError: if the device is missing, the folder cannot be used, or part of the plan does not fit the shape.
    """
    device = find_device(plan.device)
    if device.type not in ("cpu", "cuda"):
        raise IavaError(f"device is {plan.device!r}: the bench measures on cpu or cuda")
    dtype = getattr(torch, plan.dtype or ("float16" if device.type == "cuda" else "float32"))
    check_folder(out)
    if (out / RESULTS).exists():
        raise IavaError(f"{out} already holds a measurement: choose another folder")
    lvlm = SHAPES[plan.shape](device, dtype)
    bench = Bench(lvlm, plan)
    about = environment(lvlm.model)
    about["machine"] |= {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    if device.type == "cuda":
        about["machine"] |= {"memory": torch.cuda.get_device_properties(device).total_memory}
        about["versions"] |= {"cuda": torch.version.cuda}
    results: dict[str, Any] = {
        **about,
        "command": plan.command,
        "settings": asdict(plan) | {"methods": {name: method.settings() for name, method in bench.methods.items()}},
        "model": {"parameters": sum(p.numel() for p in lvlm.model.parameters()), "bytes": weights(lvlm.model)},
        "finished": False,
        "cells": [],
        "counts": [],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULTS, results)
    workloads = [Workload(*sizes) for sizes in sorted(product(plan.tokens, plan.questions, plan.batch))]
    workloads = workloads if plan.repeats else []
    batches = list(plan.batch) if plan.count else []
    total = (len(workloads) * (1 + plan.repeats) + len(batches)) * len(bench.contenders)
    done = 0

    def advance_one(part: Workload | str) -> None:
        nonlocal done
        done += 1
        advance(str(part), done, total)

    for batch in batches:
        for contender in bench.contenders:
            error, counts = _attempt(partial(count_tokens, bench, contender, batch))
            results["counts"].append({"batch": batch, "contender": contender, "error": error, **(counts or {})})
            advance_one("counts")
    # Freezing today's objects keeps garbage collection before each run short.
    gc.freeze()
    try:
        for workload in workloads:
            results["cells"] += measure_workload(bench, workload, plan.repeats, partial(advance_one, workload))
            write_json(out / RESULTS, results)
    finally:
        gc.unfreeze()
    results["machine"]["load_after"] = os.getloadavg()[0]
    results["finished"] = True
    write_json(out / RESULTS, results)
    return results


def measure_workload(
    bench: Bench, workload: Workload, repeats: int, advance_one: Callable[[], None]
) -> list[Measurement]:
    """Measures one workload with all contenders.

    Each contender first runs once to measure memory and work, which also warms it up. The timed runs follow in rounds,
    every second round in reverse order.

    Args:
        advance_one: is called after each run.
    """
    measured: dict[str, Measurement] = {}
    compiled = bool(bench.options)
    for contender in bench.contenders:
        trace = Trace()
        # What is compiled is not seen by those who count.
        bench.options |= {"disable_compile": True} if compiled else {}
        with counted_work(bench.model) as counts:
            error, peak_bytes = _attempt(partial(_peak_bytes, bench, contender, workload, trace))
        bench.options.pop("disable_compile", None)
        if compiled and error is None:
            error, _ = _attempt(bench.work(contender, workload))
        measured[contender] = {"error": error, "peak": peak_bytes, "seconds": [], **counts}
        if "selected" in trace.reading:
            measured[contender]["kept"] = float(trace.reading["selected"].float().mean())
        advance_one()
    for number in range(repeats):
        for contender in bench.contenders[:: -1 if number % 2 else 1]:
            one = measured[contender]
            if one["error"] is None:
                one["error"], seconds = _attempt(partial(_seconds, bench, contender, workload))
                one["seconds"].append(seconds)
            advance_one()
    model_bytes = weights(bench.model)
    return [
        {**asdict(workload), **_measurement(name, one, measured[PLAIN], model_bytes)} for name, one in measured.items()
    ]


def _peak_bytes(bench: Bench, contender: str, workload: Workload, trace: Trace) -> int:
    return peak(bench.work(contender, workload, trace), bench.model.device)[0]


def _seconds(bench: Bench, contender: str, workload: Workload) -> float:
    work = bench.work(contender, workload)
    _synchronize(bench.model.device)
    start = time.perf_counter()
    work()
    _synchronize(bench.model.device)
    return time.perf_counter() - start


def _measurement(contender: str, measured: Measurement, plain: Measurement, model_bytes: int) -> Measurement:
    """The measurement of one contender in one workload.

    Returns:
        "contender"; "error", the reason for a failure or None; and without a failure: "seconds", all times; "time",
        their lower quartile, median and upper quartile; "time_ratio", the quartiles of each time over that of plain
        `generate` in the same round; "peak", the peak memory in bytes including the model; "peak_ratio", its ratio to
        that of plain `generate`; "decoder_passes", "decoder_columns" and "images_read" (see `counted_work`); and for
        one question per image "kept", the share of image tokens that IAVA selected.
    """
    result: Measurement = {"contender": contender, "error": measured["error"]}
    if measured["error"] is not None:
        return result
    names = ("seconds", "decoder_passes", "decoder_columns", "images_read", "kept")
    result |= {name: measured[name] for name in names if name in measured}
    result |= {"time": _quartiles(measured["seconds"]), "peak": model_bytes + measured["peak"]}
    if plain["error"] is None:
        rounds = zip(measured["seconds"], plain["seconds"], strict=True)
        result["time_ratio"] = _quartiles([own / reference for own, reference in rounds])
        result["peak_ratio"] = result["peak"] / (model_bytes + plain["peak"])
    return result


def _quartiles(values: Sequence[float]) -> list[float]:
    return list(statistics.quantiles(values, n=4, method="inclusive")) if len(values) > 1 else [values[0]] * 3


def _attempt(work: Callable[[], Any]) -> tuple[str | None, Any]:
    """(None, result of the work) or (reason of its failure, None). One contender's failure does not end the others."""
    gc.collect()
    try:
        return None, work()
    except Exception as error:
        torch.cuda.empty_cache()
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
            return "out of memory", None
        return " ".join(f"{type(error).__name__}: {error}".split()), None


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

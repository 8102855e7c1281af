"""What a method costs: time, memory and work over plain greedy `generate`, in the same process, taking turns."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from iava.cost.baselines import Inputs, MitigV, naive
from iava.cost.shapes import QUESTIONS, SHAPES, picture
from iava.errors import IavaError
from iava.evaluation.environment import environment
from iava.evaluation.records import write_json
from iava.files import check_folder
from iava.lvlm.model import LVLM, out_of_memory
from iava.methods.base import Method
from iava.methods.trace import Trace
from iava.metrics.memory import peak, weights

BASELINE = "generate"
PEERS = ("naive", "mitigv")
DTYPES = ("float32", "float16", "bfloat16")
RESULTS = "cost.json"

Cell = dict[str, Any]
Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how many runs are done, how many there are."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        shape: of `SHAPES`.
        methods: command-line names, such as "greedy"; a name with a negative image, such as "iava:hide".
        peers: of `PEERS`.
        tokens: numbers of new tokens; every answer is as long.
        questions: numbers of questions an image, up to six.
        batch: numbers of images.
        repeats: how often each is timed.
        device: None takes a GPU if there is one.
        dtype: of the weights; None takes float16 on a GPU and float32 elsewhere.

    Raises:
        IavaError: if something is unknown or out of range.
    """

    shape: str
    methods: Sequence[str]
    peers: Sequence[str] = ()
    tokens: Sequence[int] = (1, 32, 128)
    questions: Sequence[int] = (1, 6)
    batch: Sequence[int] = (1, 8)
    repeats: int = 5
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise IavaError(f"unknown shape {self.shape!r}: use one of {', '.join(SHAPES)}")
        for peer in self.peers:
            if peer not in PEERS:
                raise IavaError(f"unknown peer {peer!r}: use one of {', '.join(PEERS)}")
        if not [*self.methods, *self.peers]:
            raise IavaError("nothing is named that could be measured: use methods such as greedy,iava:hide")
        for name in ("tokens", "questions", "batch"):
            values = getattr(self, name)
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise IavaError(f"{name} is {_listed(values)!r}: it must be different numbers of at least 1")
        if max(self.questions) > len(QUESTIONS):
            raise IavaError(f"questions is {_listed(self.questions)!r}: there are {len(QUESTIONS)} at most")
        if self.repeats < 1:
            raise IavaError(f"repeats is {self.repeats}: it must be at least 1")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise IavaError(f"dtype is {self.dtype!r}: use one of {', '.join(DTYPES)}")

    @property
    def command(self) -> str:
        """What to type to measure it again."""
        options = {"methods": _listed(self.methods)} if self.methods else {}
        options |= {name: _listed(getattr(self, name)) for name in ("tokens", "questions", "batch")}
        given = {name: getattr(self, name) for name in ("repeats", "device", "dtype") if getattr(self, name)}
        peers = "".join(f" --peer {peer}" for peer in self.peers)
        return f"iava bench --shape {self.shape}" + "".join(f" --{k} {v}" for k, v in (options | given).items()) + peers


def _listed(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)


@dataclass(frozen=True)
class Load:
    """One configuration: so many images, so many questions about each, so many new tokens an answer."""

    tokens: int
    questions: int
    batch: int

    def __str__(self) -> str:
        names = {"new token": self.tokens, "question": self.questions, "image": self.batch}
        return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in names.items())


class Bench:
    """A model with everything that is to be timed on it.

    Args:
        lvlm: the model; it is changed: it forgets its end tokens, so that all answers are equally long.
        plan: what is measured.

    Raises:
        IavaError: if a method, its negative image or a peer is unknown, or a peer is not there.
    """

    def __init__(self, lvlm: LVLM, plan: Plan) -> None:
        self.lvlm = lvlm
        self.model: Any = lvlm.model
        lvlm.processor.tokenizer.eos_token = None
        for part in (self.model, self.model.get_decoder()):
            if getattr(part, "generation_config", None) is not None:
                part.generation_config.eos_token_id = None
                part.generation_config.pad_token_id = 0
        self.methods = {name: method_of(lvlm, name) for name in plan.methods}
        self.peers: dict[str, Any] = {peer: MitigV(lvlm) if peer == "mitigv" else naive for peer in plan.peers}

    @property
    def contenders(self) -> list[str]:
        return [BASELINE, *self.methods, *self.peers]

    def inputs(self, batch: int, question: str) -> Inputs:
        """One question about each of some images, ready for `generate`."""
        processor, prompt = self.lvlm.processor, self.lvlm.prompt(question)
        made = processor(
            text=[prompt] * batch, images=[[picture(seed)] for seed in range(batch)], padding=True, return_tensors="pt"
        )
        return dict(made.to(self.model.device, dtype=self.model.dtype))

    def work(self, contender: str, load: Load, trace: Trace | None = None) -> Callable[[], Any]:
        """A load as one contender does it: a function that leaves nothing behind.

        One question an image: from inputs on the device to tokens. Several: from pictures to text, where plain
        `generate` and the peers are called once a question with all images, our methods once an image with all
        questions (`LVLM.ask_many`).
        """
        if load.questions == 1:
            inputs, general = (self.inputs(load.batch, text) for text in (QUESTIONS[0], "Describe this image."))
            return partial(self._once, contender, inputs, general, load.tokens, trace)
        pictures, questions = [picture(seed) for seed in range(load.batch)], QUESTIONS[: load.questions]
        if contender in self.methods:
            ask = partial(self.lvlm.ask_many, method=self.methods[contender], max_new_tokens=load.tokens)
            return lambda: [ask(one, questions) for one in pictures]
        return partial(self._from_pictures, contender, load, questions)

    def _from_pictures(self, contender: str, load: Load, questions: Sequence[str]) -> None:
        for question in questions:
            general = self.inputs(load.batch, "Describe this image.") if contender == "naive" else {}
            tokens = self._once(contender, self.inputs(load.batch, question), general, load.tokens)
            if tokens is not None:
                self.lvlm.processor.batch_decode(tokens[:, -load.tokens :], skip_special_tokens=True)

    def _once(
        self, contender: str, inputs: Inputs, general: Inputs, tokens: int, trace: Trace | None = None
    ) -> torch.Tensor | None:
        if contender == "naive":
            return naive(self.model, inputs, general, tokens)
        if contender == "mitigv":
            return self.peers["mitigv"](inputs, tokens)
        options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False}
        if contender in self.methods:
            options["custom_generate"] = partial(self.methods[contender], trace=trace)
        return self.model.generate(**inputs, **options)


def method_of(lvlm: LVLM, text: str) -> Method:
    """The method that a name such as "greedy" or "iava:hide" means.

    Raises:
        IavaError: if there is none.
    """
    name, colon, negative = text.partition(":")
    return lvlm.method(name, **({"negative": negative} if colon else {}))


@contextmanager
def counted(model: Any) -> Iterator[dict[str, int]]:
    """Counts, in the dict it yields, the columns (tokens times rows) that the decoder's layers and the images that
    the vision tower are given inside.
    """
    counts = {"decoder_columns": 0, "images_read": 0}

    def count(name: str, dimensions: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
            given = next(value for value in [*args, *kwargs.values()] if isinstance(value, torch.Tensor))
            counts[name] += given.shape[:dimensions].numel()

        return hook

    layers = next(part for part in model.get_decoder().modules() if isinstance(part, torch.nn.ModuleList))
    tower = model.vision_model if hasattr(model, "vision_model") else model.base_model.vision_tower
    handles = [
        layers[0].register_forward_pre_hook(count("decoder_columns", 2), with_kwargs=True),
        tower.register_forward_pre_hook(count("images_read", 1), with_kwargs=True),
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def measure(plan: Plan, out: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures a plan, and writes what it found to `out`/cost.json after each configuration.

    Returns:
        What the file holds: "command", "settings", "model", "versions", "git", "machine", "started", "finished" and
        "cells", one for each configuration and contender (see `_cell`).

    Raises:
        IavaError: if the device is not there, the folder cannot be used, or something in the plan does not fit the
            shape.
    """
    device = _device(plan.device)
    dtype = getattr(torch, plan.dtype or ("float16" if device.type == "cuda" else "float32"))
    check_folder(out)
    if (out / RESULTS).exists():
        raise IavaError(f"{out} holds a measurement already: choose another folder")
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
        "settings": asdict(plan) | {"methods": {name: made.settings() for name, made in bench.methods.items()}},
        "model": {"parameters": sum(p.numel() for p in lvlm.model.parameters()), "bytes": weights(lvlm.model)},
        "finished": False,
        "cells": [],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULTS, results)
    loads = [Load(*one) for one in sorted(product(plan.tokens, plan.questions, plan.batch))]
    total = len(loads) * len(bench.contenders) * (1 + plan.repeats)
    done = 0

    def ran(load: Load) -> None:
        nonlocal done
        done += 1
        advance(str(load), done, total)

    # What is there now need not be looked through for garbage before each run.
    gc.freeze()
    try:
        for load in loads:
            results["cells"] += cells(bench, load, plan.repeats, partial(ran, load))
            write_json(out / RESULTS, results)
    finally:
        gc.unfreeze()
    results["machine"]["load_after"] = os.getloadavg()[0]
    results["finished"] = True
    write_json(out / RESULTS, results)
    return results


def cells(bench: Bench, load: Load, repeats: int, ran: Callable[[], None]) -> list[Cell]:
    """Measures one configuration: each contender once for memory and work, which also warms it up, then in turns for
    time, every second round backwards.
    """
    found: dict[str, Cell] = {}
    for contender in bench.contenders:
        trace = Trace()
        with counted(bench.model) as counts:
            error, most = _tried(partial(_peak, bench, contender, load, trace))
        found[contender] = {"error": error, "peak": most, "seconds": [], **counts}
        if "selected" in trace.reading:
            found[contender]["kept"] = float(trace.reading["selected"].float().mean())
        ran()
    for turn in range(repeats):
        for contender in bench.contenders[:: -1 if turn % 2 else 1]:
            cell = found[contender]
            if cell["error"] is None:
                cell["error"], seconds = _tried(partial(_timed, bench, contender, load))
                cell["seconds"].append(seconds)
            ran()
    base = weights(bench.model)
    return [{**asdict(load), **_cell(name, cell, found[BASELINE], base)} for name, cell in found.items()]


def _peak(bench: Bench, contender: str, load: Load, trace: Trace) -> int:
    return peak(bench.work(contender, load, trace), bench.model.device)[0]


def _timed(bench: Bench, contender: str, load: Load) -> float:
    work = bench.work(contender, load)
    _wait(bench.model.device)
    start = time.perf_counter()
    work()
    _wait(bench.model.device)
    return time.perf_counter() - start


def _cell(contender: str, measured: Cell, baseline: Cell, base: int) -> Cell:
    """One line of the results.

    Returns:
        "contender"; "error", None or why there is nothing else; "seconds", every time; "time" [lower quartile, median,
        upper]; "time_ratio", the same of each round's time over plain `generate`'s in that round; "peak" bytes with the
        model's own, and "peak_ratio"; "decoder_columns" and "images_read"; "kept", the share of image tokens that IAVA
        found irrelevant (one question only).
    """
    cell: Cell = {"contender": contender, "error": measured["error"]}
    if measured["error"] is not None:
        return cell
    cell |= {name: measured[name] for name in ("seconds", "decoder_columns", "images_read", "kept") if name in measured}
    cell |= {"time": _quartiles(measured["seconds"]), "peak": base + measured["peak"]}
    if baseline["error"] is None:
        pairs = zip(measured["seconds"], baseline["seconds"], strict=True)
        cell["time_ratio"] = _quartiles([ours / plain for ours, plain in pairs])
        cell["peak_ratio"] = cell["peak"] / (base + baseline["peak"])
    return cell


def _quartiles(values: Sequence[float]) -> list[float]:
    return list(statistics.quantiles(values, n=4, method="inclusive")) if len(values) > 1 else [values[0]] * 3


def _tried(work: Callable[[], Any]) -> tuple[str | None, Any]:
    """(None, what the work returned), or (why it could not be done, None): one contender's end is not the others'."""
    gc.collect()
    try:
        return None, work()
    except Exception as error:
        torch.cuda.empty_cache()
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
            return "out of memory", None
        return " ".join(f"{type(error).__name__}: {error}".split()), None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise IavaError(f"device is {name!r}: it must be cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise IavaError(f"device is {name!r}: it must be cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise IavaError(f"device is {name!r}, but torch finds no GPU here: use cpu")
    return device

"""What is measured: plain `generate`, our methods and the baselines, each doing the same work on one model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from iava.cost.baselines import MitigV, ModelInputs, naive
from iava.cost.plan import CostPlan, Workload
from iava.cost.shapes import QUESTIONS, noise_image
from iava.engine import hf
from iava.errors import IavaError
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.methods.trace import Trace

PLAIN = "generate"
"""The name of plain greedy `generate`, which all others are compared with."""
GENERAL = "Describe this image."


class Bench:
    """A model and the contenders that are measured on it: plain `generate`, methods and baselines.

    Args:
        lvlm: the model. Its end-of-sequence token is removed, so that all answers have the same length.
        plan: what to measure.

    Raises:
        IavaError: if a method, its negative image or a baseline is unknown, or a baseline is not installed.
    """

    def __init__(self, lvlm: LVLM, plan: CostPlan) -> None:
        self.lvlm = lvlm
        self.model: Any = lvlm.model
        lvlm.processor.tokenizer.eos_token = None
        for part in (self.model, self.model.get_decoder()):
            if getattr(part, "generation_config", None) is not None:
                part.generation_config.eos_token_id = None
                part.generation_config.pad_token_id = 0
        self.methods = {name: named_method(lvlm, name) for name in plan.methods}
        self.options = hf.compiled_options(self.model.device) if plan.compile else {}
        """Options of `generate` for all contenders but the baselines."""
        self.baselines: dict[str, Any] = {
            name: naive if name == "naive" else MitigV(lvlm, name.removeprefix("mitigv:")) for name in plan.baselines
        }

    @property
    def contenders(self) -> list[str]:
        return [PLAIN, *self.methods, *self.baselines]

    def inputs(self, batch: int, question: str) -> ModelInputs:
        """The inputs of `generate` for one question about each of `batch` images."""
        processor, prompt = self.lvlm.processor, self.lvlm.prompt(question)
        images = [[noise_image(seed)] for seed in range(batch)]
        inputs = processor(text=[prompt] * batch, images=images, padding=True, return_tensors="pt")
        return dict(inputs.to(self.model.device, dtype=self.model.dtype))

    def work(self, contender: str, workload: Workload, trace: Trace | None = None) -> Callable[[], Any]:
        """A function that does a workload with one contender.

        With one question per image, the work goes from inputs on the device to tokens. With several questions, it goes
        from images to text. Plain `generate` and the baselines are then called once per question with all images. Our
        methods are called once per image with all questions (`LVLM.ask_many`).
        """
        if workload.questions == 1:
            inputs, general = (self.inputs(workload.batch, text) for text in (QUESTIONS[0], GENERAL))
            return partial(self._generate, contender, inputs, general, workload.tokens, trace)
        images, questions = [noise_image(seed) for seed in range(workload.batch)], QUESTIONS[: workload.questions]
        if contender in self.methods:
            ask = partial(self.lvlm.ask_many, method=self.methods[contender], max_new_tokens=workload.tokens)
            return lambda: [ask(image, questions) for image in images]
        return partial(self._question_by_question, contender, workload, questions)

    def _question_by_question(self, contender: str, workload: Workload, questions: Sequence[str]) -> None:
        for question in questions:
            general = self.inputs(workload.batch, GENERAL) if contender == "naive" else {}
            tokens = self._generate(contender, self.inputs(workload.batch, question), general, workload.tokens)
            if tokens is not None:
                self.lvlm.processor.batch_decode(tokens[:, -workload.tokens :], skip_special_tokens=True)

    def _generate(
        self, contender: str, inputs: ModelInputs, general: ModelInputs, tokens: int, trace: Trace | None = None
    ) -> torch.Tensor | None:
        if contender == "naive":
            return naive(self.model, inputs, general, tokens)
        if contender in self.baselines:
            return self.baselines[contender](inputs, tokens)
        options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False, **self.options}
        if contender in self.methods:
            options["custom_generate"] = partial(self.methods[contender], trace=trace)
        return self.model.generate(**inputs, **options)


def named_method(lvlm: LVLM, name: str) -> Method:
    """The method of a name such as "greedy", "iava:hide" or "iava:hide:lazy".

    Raises:
        IavaError: if the method or the negative image is unknown.
    """
    method, *options = name.split(":")
    negatives = [option for option in options if option != "lazy"]
    if len(options) > len(set(options)) or len(negatives) > 1:
        raise IavaError(f"unknown contender {name!r}: write METHOD, METHOD:NEGATIVE or METHOD:NEGATIVE:lazy")
    made = lvlm.method(method, **({"negative": negatives[0]} if negatives else {}))
    made.lazy = "lazy" in options
    return made


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """The layers of the model's decoder."""
    return next(part for part in model.get_decoder().modules() if isinstance(part, torch.nn.ModuleList))


@contextmanager
def counted_work(model: Any) -> Iterator[dict[str, int]]:
    """Counts the work inside the block.

    Yields:
        A dict with "decoder_passes", the runs of the decoder; "decoder_columns", the tokens times rows that its layers
        process; and "images_read", the images that the vision tower encodes.
    """
    counts = {"decoder_passes": 0, "decoder_columns": 0, "images_read": 0}

    def count(name: str, dimensions: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
            first = next(value for value in [*args, *kwargs.values()] if isinstance(value, torch.Tensor))
            counts[name] += first.shape[:dimensions].numel()
            counts["decoder_passes"] += name == "decoder_columns"

        return hook

    tower = model.vision_model if hasattr(model, "vision_model") else model.base_model.vision_tower
    handles = [
        decoder_layers(model)[0].register_forward_pre_hook(count("decoder_columns", 2), with_kwargs=True),
        tower.register_forward_pre_hook(count("images_read", 1), with_kwargs=True),
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()

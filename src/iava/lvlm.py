"""A vision-language model that can be asked questions about images, by any of the decoding methods."""

import copy
import inspect
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ResolvedRevision
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationMixin, PreTrainedModel, ProcessorMixin
from transformers.utils.hub import resolve_revision

from iava.boxes import look_boxes, token_boxes
from iava.engine.probe import unchanged
from iava.engine.qformer import looks
from iava.engine.shared import Memory
from iava.images import ImageSource, read_image
from iava.methods import METHODS
from iava.methods.base import Method, Trace

CANDIDATES = 10
"""How many candidate tokens of a step an explanation keeps."""


@dataclass(frozen=True)
class Looks:
    """What a Q-Former's N queries look at: their cross-attention over the P patches of the vision tower.

    Args:
        general: (N, P) under the general instruction, mean over heads and layers; a row's sum is at most 1.
        query: (N, P) under the question; the same where the Q-Former does not read the instruction.
        boxes: (P, 4) float (x0, y0, x1, y1), each patch's rectangle in pixels of the original image.
    """

    general: torch.Tensor
    query: torch.Tensor
    boxes: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """What a method saw and weighed. N image tokens, L decoder layers; None where a method has no such thing.

    Args:
        att_general: (N,) attention of the last prompt token under the general instruction, over the chosen layers.
        att_query: (N,) the same under the question.
        layers_general: (L, N) the same for each decoder layer, mean over heads.
        layers_query: (L, N).
        selected: (N,) bool, the image tokens found irrelevant, which the second branch keeps.
        boxes: (N, 4) float (x0, y0, x1, y1), each token's rectangle in pixels of the original image (as
            `read_image` returns it); None for models whose tokens are no patches of the picture.
        steps: a dict for each generated token with "full", "combined" and, given a second branch, "negative": the
            ten most probable tokens, each {"id", "text", "probability"}; "combined" leaves out what the method rules
            out.
        looks: what the image tokens look at in models whose tokens are a Q-Former's queries.
        top_i: how many tokens could be selected, as a count.
        lam: how many standard deviations above the mean their attention had to be.
        heads_general: (L, heads, N) `layers_general` before the mean over heads.
        heads_query: (L, heads, N).
    """

    att_general: torch.Tensor | None
    att_query: torch.Tensor | None
    layers_general: torch.Tensor | None
    layers_query: torch.Tensor | None
    selected: torch.Tensor | None
    boxes: np.ndarray | None
    steps: list[dict[str, list[dict[str, Any]]]]
    looks: Looks | None = None
    top_i: int | None = None
    lam: float | None = None
    heads_general: torch.Tensor | None = None
    heads_query: torch.Tensor | None = None


@dataclass(frozen=True)
class Answer:
    """An answer and how it came about.

    Args:
        text: without special tokens.
        tokens: the new token ids, without the end-of-sequence token.
        method: the method's command-line name.
        settings: the method's parameters.
        seconds: wall-clock time, from the image to the text; of a batch, its time shared out equally.
        logits: (V,) float32, the first step's combined logits before the plausibility mask.
        explanation: if it was asked for.
        selected: share of the image tokens that the method selected; None where it selects none.
    """

    text: str
    tokens: list[int]
    method: str
    settings: dict[str, Any]
    seconds: float
    logits: torch.Tensor
    explanation: Explanation | None = None
    selected: float | None = None


class LVLM:
    """A model with its processor.

    Args:
        model: a Hugging Face image-text-to-text model with a causal decoder.
        processor: its processor, with a chat template.
        revision: the commit on the Hub that both are from, if they are.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, revision: str | None = None) -> None:
        self.model = model.eval()
        self.processor = processor
        self.revision = revision
        self._told = False  # that memory did not suffice for a whole batch

    def method(self, name: str, **settings: Any) -> Method:
        """Builds a method for this model.

        Args:
            name: a command-line name, such as "greedy" or "iava".
            settings: its parameters; the rest take their defaults.

        Raises:
            ValueError: if the name or a parameter is unknown, or a parameter is out of range.
        """
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}: use one of {', '.join(METHODS)}")
        known = METHODS[name]().settings()
        for setting in settings:
            if setting not in known:
                wanted = f"use one of {', '.join(known)}" if known else "it has none"
                raise ValueError(f"method {name} has no setting {setting!r}: {wanted}")
        return METHODS[name](**settings).bind(self.model, self.processor)

    def ask(
        self,
        image: ImageSource,
        question: str,
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        **settings: Any,
    ) -> Answer:
        """Asks one question about one image; see `ask_many`."""
        return self.ask_many(
            image,
            [question],
            method=method,
            max_new_tokens=max_new_tokens,
            explain=explain,
            seed=seed,
            **settings,
        )[0]

    def ask_many(
        self,
        image: ImageSource,
        questions: Sequence[str],
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        **settings: Any,
    ) -> list[Answer]:
        """Asks several questions about one image, each on its own, in one batch.

        Where the memory does not hold the batch, it is halved, as often as needed, and that is said once on standard
        error. Best tokens stay the same; what is drawn depends on the batch.

        Args:
            image: a path, the bytes of an image file, a PIL image or a uint8 array.
            questions: without any template around them.
            method: a command-line name, or a method object.
            max_new_tokens: at least 1.
            explain: whether to keep attentions, selection and candidates.
            seed: for methods that draw tokens; the caller's random state is left alone. None draws from that state.
            settings: parameters of a method given by name.

        Returns:
            One answer a question, in order.

        Raises:
            ValueError: if the image cannot be read, a question is blank, or a method or parameter is unknown.
        """
        start = time.perf_counter()
        # Nothing is kept: prompts of one batch share what they begin with anyway.
        reading = Reading(self, read_image(image), memory=None)
        return self._answers(reading, questions, method, max_new_tokens, explain, seed, settings, start)

    def read(self, image: ImageSource) -> "Reading":
        """Reads an image, to be asked about now and later: what it costs to read is paid with the first question.

        Raises:
            ValueError: if the image cannot be read.
        """
        return Reading(self, read_image(image), Memory())

    def _answers(
        self,
        reading: "Reading",
        questions: Sequence[str],
        method: str | Method,
        max_new_tokens: int,
        explain: bool,
        seed: int | None,
        settings: dict[str, Any],
        start: float,
    ) -> list[Answer]:
        """The answers of one batch or, where the memory does not hold it, of its halves."""
        try:
            return self._batch(reading, questions, method, max_new_tokens, explain, seed, settings, start)
        except RuntimeError as error:
            if len(questions) < 2 or not out_of_memory(error):
                raise
        # Out of the handler, whose traceback would keep what filled the memory.
        if not self._told:
            print("iava: out of memory: the questions of an image are asked in smaller batches", file=sys.stderr)
            self._told = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(questions) // 2
        # Another seed, or both halves would draw alike.
        later = None if seed is None else seed + half
        first = self._answers(reading, questions[:half], method, max_new_tokens, explain, seed, settings, start)
        now = time.perf_counter()
        return first + self._answers(reading, questions[half:], method, max_new_tokens, explain, later, settings, now)

    def _batch(
        self,
        reading: "Reading",
        questions: Sequence[str],
        method: str | Method,
        max_new_tokens: int,
        explain: bool,
        seed: int | None,
        settings: dict[str, Any],
        start: float,
    ) -> list[Answer]:
        self._check(questions)
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens!r}: it must be a whole number, at least 1")
        if isinstance(method, str):
            method = self.method(method, **settings)
        elif settings:
            raise ValueError(f"settings ({', '.join(settings)}) belong to a method given by name, not to an object")
        else:
            method = method.bind(self.model, self.processor)
        if not questions:
            return []
        asked = [method.reword(question.strip()) for question in questions]
        self._check(asked)
        inputs = self._inputs(reading, asked, pixels=method.reads_pixels)
        trace = Trace(top=CANDIDATES if explain else 0)
        watched: AbstractContextManager[list[torch.Tensor]] = looks(self.model) if explain else nullcontext([])
        with unchanged(self.model), watched as runs, torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            sequences = self.model.generate(
                **inputs,
                custom_generate=partial(method, trace=trace, memory=reading.memory),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
            )
        new = sequences[:, inputs["input_ids"].shape[1] :].cpu()
        assert trace.logits is not None
        logits = trace.logits.cpu()
        tokens = [self._until_end(row) for row in new.tolist()]
        explanations = [
            self._explanation(trace, runs, row, reading.picture, steps=min(len(ids) + 1, new.shape[1]))
            if explain
            else None
            for row, ids in enumerate(tokens)
        ]
        texts = [self.processor.decode(ids, skip_special_tokens=True).strip() for ids in tokens]
        shares = _shares(trace, len(questions))
        seconds = (time.perf_counter() - start) / len(questions)
        about = method.name, method.settings(), seconds
        return [
            Answer(texts[row], tokens[row], *about, logits[row], explanations[row], shares[row])
            for row in range(len(questions))
        ]

    def _check(self, questions: Sequence[str]) -> None:
        if isinstance(questions, str):
            raise ValueError("questions is one string: give a list of questions, or use ask")
        special = [str(token) for token in self.processor.tokenizer.added_tokens_decoder.values() if token.special]
        for question in questions:
            if not isinstance(question, str) or not question.strip():
                raise ValueError(f"the question is {question!r}: ask something, such as 'Is there a dog in the image?'")
            for token in special:
                if token in question:
                    raise ValueError(
                        f"the question contains {token!r}, which means something else to the model: leave it out"
                    )

    def _inputs(self, reading: "Reading", questions: Sequence[str], *, pixels: bool = False) -> dict[str, Any]:
        prompts = [self.prompt(question) for question in questions]
        features = None if pixels else reading.features(prompts[0])
        inputs = reading.processor(
            text=prompts,
            # One list for each prompt: some processors take a flat list for the images of one prompt.
            images=[[reading.picture] for _ in prompts],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        if features is not None:
            del inputs["pixel_values"]
        made = dict(inputs.to(self.model.device, dtype=self.model.dtype))
        made.pop("labels", None)
        if "qformer_input_ids" in made:
            # A Q-Former counts positions from its first token, so its padding belongs on the right.
            processor: Any = self.processor
            text = processor.qformer_tokenizer(prompts, padding=True, padding_side="right", return_tensors="pt")
            made["qformer_input_ids"] = text["input_ids"].to(self.model.device)
            made["qformer_attention_mask"] = text["attention_mask"].to(self.model.device)
        if features is not None:
            made["mm_encoder_outputs"] = {"image": _repeated(features, len(prompts))}
        return made

    def prompt(self, question: str) -> str:
        """How a question about one image looks when the model reads it."""
        if not self.processor.chat_template:
            # InstructBLIP, BLIP-2 and PaliGemma: their processors put the image before the question.
            return question
        turn: Any = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    def _until_end(self, ids: list[int]) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        stop = next((position for position, token in enumerate(ids) if token in ends), len(ids))
        return ids[:stop]

    def _explanation(
        self, trace: Trace, runs: list[torch.Tensor], row: int, picture: Image.Image, steps: int
    ) -> Explanation:
        reading = {key: value[row].cpu() for key, value in trace.reading.items()}
        valid = reading.pop("valid", None)
        top_i, lam = reading.pop("top_i", None), reading.pop("lam", None)
        kept = {key: value[..., valid] for key, value in reading.items()}
        return Explanation(
            att_general=kept.get("att_general"),
            att_query=kept.get("att_query"),
            layers_general=kept.get("layers_general"),
            layers_query=kept.get("layers_query"),
            selected=kept.get("selected"),
            boxes=None if valid is None else token_boxes(self.model, self.processor, picture, int(valid.sum())),
            steps=[
                {kind: self._candidates(ids[row], p[row]) for kind, (ids, p) in step.items()}
                for step in trace.steps[:steps]
            ],
            # The Q-Former reads the question first, and the general instruction if it is given its own.
            looks=Looks(runs[-1][row].cpu(), runs[0][row].cpu(), look_boxes(self.model, self.processor, picture))
            if runs
            else None,
            top_i=None if top_i is None else int(top_i),
            # The shortest decimal that is the same in single precision: -0.1, not -0.10000000149.
            lam=None if lam is None else float(str(lam.numpy()[()])),
            heads_general=kept.get("heads_general"),
            heads_query=kept.get("heads_query"),
        )

    def _candidates(self, ids: torch.Tensor, probabilities: torch.Tensor) -> list[dict[str, Any]]:
        return [
            {"id": token, "text": self.processor.decode([token]), "probability": probability}
            for token, probability in zip(ids.tolist(), probabilities.tolist(), strict=True)
            if probability > 0
        ]


class Reading:
    """An image that a model has read: made by `LVLM.read`, asked as the model is.

    The image is encoded once, its keys and values are computed once, and so is the attention to it under a general
    instruction; each question costs what follows the image.

    Args:
        lvlm: the model.
        picture: the image, RGB.
        memory: where to keep what the decoder reads; None keeps nothing.
    """

    def __init__(self, lvlm: LVLM, picture: Image.Image, memory: Memory | None) -> None:
        self.picture = picture
        self.memory = memory
        self._lvlm = lvlm
        self._features: Any = None
        self.processor: Any = copy.copy(lvlm.processor)
        self.processor.image_processor = _Once(self.processor.image_processor)

    def ask(
        self,
        question: str,
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        **settings: Any,
    ) -> Answer:
        """Asks one question; see `LVLM.ask_many`."""
        start = time.perf_counter()
        return self._lvlm._answers(self, [question], method, max_new_tokens, explain, seed, settings, start)[0]

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        **settings: Any,
    ) -> list[Answer]:
        """Asks several questions, each on its own, in one batch; see `LVLM.ask_many`."""
        start = time.perf_counter()
        return self._lvlm._answers(self, questions, method, max_new_tokens, explain, seed, settings, start)

    def features(self, prompt: str) -> Any:
        """What the vision tower makes of the image, or None for models that must be given the pixels each time.

        Args:
            prompt: any prompt about the image.
        """
        model: Any = self._lvlm.model
        # InstructBLIP and BLIP-2 have a generate of their own, which reads the image itself.
        if type(model).generate is not GenerationMixin.generate or not model._supports_mm_encoder_outputs():
            return None
        if self._features is None:
            one = self.processor(text=[prompt], images=[[self.picture]], return_tensors="pt")
            one = one.to(model.device, dtype=model.dtype)
            read = model.base_model.get_image_features
            wanted = [name for name in inspect.signature(read).parameters if name in one]
            with torch.no_grad():
                self._features = read(**{name: one[name] for name in wanted}, return_dict=True)
        return self._features


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that a GPU's memory or the machine's is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _Once:
    """An image processor that is given one picture, once or several times, and looks at it once."""

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, images: list, **settings: Any) -> Any:
        if self._made is None:
            self._made = self._image_processor(images[:1], **settings)
        several = {
            name: torch.cat([value] * len(images)) if isinstance(value, torch.Tensor) else [*value] * len(images)
            for name, value in self._made.items()
        }
        return type(self._made)(several)


def _shares(trace: Trace, rows: int) -> list[float] | list[None]:
    """Of each row's image tokens how many were selected, as a share of 1."""
    if "selected" not in trace.reading:
        return [None] * rows
    valid = trace.reading["valid"]
    return ((trace.reading["selected"] & valid).sum(dim=1) / valid.sum(dim=1)).tolist()


def _repeated(features: Any, times: int) -> Any:
    """One image's features as those of several equal images."""

    def whole(value: Any) -> Any:
        return torch.cat([value] * times) if isinstance(value, torch.Tensor) else [*value] * times

    several = {"pooler_output": whole(features.pooler_output)}
    if "deepstack_features" in features:
        several["deepstack_features"] = [whole(layer) for layer in features.deepstack_features]
    return type(features)(**several)


def load(
    model: str | Path | PreTrainedModel,
    processor: ProcessorMixin | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> LVLM:
    """Loads a vision-language model.

    Args:
        model: "pocket" (the small model that ships with this package), a folder, a model id on the Hugging Face Hub,
            or a model that is already there.
        processor: for a model that is already there.
        device: None takes a GPU if there is one. A model that is already there stays where it is unless told.
        dtype: None takes the checkpoint's on a GPU and float32 on a CPU. A model that is already there keeps its own.

    Returns:
        The model with its processor, ready to be asked.

    Raises:
        ValueError: if there is no such model, or it is not an image-text-to-text model.
    """
    if isinstance(model, PreTrainedModel):
        if processor is None:
            raise ValueError("a model object needs its processor: load(model, processor)")
        return LVLM(_moved(model, device, dtype), processor)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("auto" if torch.device(device).type != "cpu" else torch.float32)
    source = str(resources.files("iava.pocket") / "weights") if model == "pocket" else str(model)
    revision = resolve_revision(source)
    try:
        loaded = AutoModelForImageTextToText.from_pretrained(source, revision=revision, dtype=dtype)
        # Pillow everywhere: torchvision, where it is installed, resizes otherwise, and not in every way.
        loaded_processor = AutoProcessor.from_pretrained(source, revision=revision, backend="pil")
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"unknown model {str(model)!r}: use 'pocket', a folder with a model, or the id of an image-text-to-text "
            f"model on the Hugging Face Hub ({reason})"
        ) from None
    commit = revision.resolved if isinstance(revision, ResolvedRevision) else None
    return LVLM(_moved(loaded, device), loaded_processor, commit)


def _moved(model: nn.Module, device: str | torch.device | None, dtype: str | torch.dtype | None = None) -> Any:
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return model.to(device=device, dtype=dtype) if device or dtype else model

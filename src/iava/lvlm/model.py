"""A vision-language model that can be asked questions about images, by any of the decoding methods."""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.hf import private_view
from iava.engine.prefix_cache import PrefixCache
from iava.engine.qformer import cross_attention
from iava.errors import IavaError
from iava.lvlm.answers import Answer
from iava.lvlm.explanation import CANDIDATES, explanation, shares
from iava.lvlm.images import ImageSource, read_image
from iava.lvlm.inputs import Inputs
from iava.methods import METHODS, check_settings
from iava.methods.base import Method
from iava.methods.checks import check_question, check_whole
from iava.methods.trace import Trace


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
            IavaError: if the name or a parameter is unknown, or a parameter is out of range.
        """
        check_settings(name, settings)
        return METHODS[name](**settings).bind(self.model, self.processor)

    def prompt(self, question: str) -> str:
        """How a question about one image looks when the model reads it."""
        if not self.processor.chat_template:
            # InstructBLIP, BLIP-2 and PaliGemma: their processors put the image before the question.
            return question
        turn: Any = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

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
            IavaError: if the image cannot be read, a question is blank, or a method or parameter is unknown.
        """
        start = time.perf_counter()
        # Nothing is kept: prompts of one batch share what they begin with anyway.
        reading = Reading(self, read_image(image), memory=None)
        return self._answers(reading, questions, method, max_new_tokens, explain, seed, settings, start)

    def read(self, image: ImageSource) -> "Reading":
        """Reads an image, to be asked about now and later: what it costs to read is paid with the first question.

        Raises:
            IavaError: if the image cannot be read.
        """
        return Reading(self, read_image(image), PrefixCache())

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
        check_whole("max_new_tokens", max_new_tokens, low=1)
        if isinstance(method, str):
            method = self.method(method, **settings)
        elif settings:
            raise IavaError(f"settings ({', '.join(settings)}) belong to a method given by name, not to an object")
        else:
            method = method.bind(self.model, self.processor)
        if not questions:
            return []
        asked = [method.reword(question.strip()) for question in questions]
        self._check(asked)
        inputs = reading.inputs.of([self.prompt(question) for question in asked], pixels=method.reads_pixels)
        trace = Trace(top=CANDIDATES if explain else 0)
        watched: AbstractContextManager[list[torch.Tensor]] = (
            cross_attention(self.model) if explain else nullcontext([])
        )
        with watched as runs:
            sequences = private_view(self.model).generate(
                **inputs,
                custom_generate=partial(method, trace=trace, prefix_cache=reading.memory, seed=seed),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
            )
        new = sequences[:, inputs["input_ids"].shape[1] :].cpu()
        assert trace.logits is not None
        logits = trace.logits.cpu()
        tokens = [self._until_end(row) for row in new.tolist()]
        explained = partial(explanation, self.model, self.processor, reading.picture, trace, runs)
        explanations = [
            explained(row, steps=min(len(ids) + 1, new.shape[1])) if explain else None for row, ids in enumerate(tokens)
        ]
        texts = [self.processor.decode(ids, skip_special_tokens=True).strip() for ids in tokens]
        seconds = (time.perf_counter() - start) / len(questions)
        selected = shares(trace, len(questions))
        about = method.name, method.settings(), seconds
        return [
            Answer(texts[row], tokens[row], *about, logits[row], explanations[row], selected[row])
            for row in range(len(questions))
        ]

    def _check(self, questions: Sequence[str]) -> None:
        if isinstance(questions, str):
            raise IavaError("questions is one string: give a list of questions, or use ask")
        special = [str(token) for token in self.processor.tokenizer.added_tokens_decoder.values() if token.special]
        for question in questions:
            check_question(question)
            for token in special:
                if token in question:
                    raise IavaError(
                        f"the question contains {token!r}, which means something else to the model: leave it out"
                    )

    def _until_end(self, ids: list[int]) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        stop = next((position for position, token in enumerate(ids) if token in ends), len(ids))
        return ids[:stop]


class Reading:
    """An image that a model has read: made by `LVLM.read`, asked as the model is.

    The image is encoded once, its keys and values are computed once, and so is the attention to it under a general
    instruction; each question costs what follows the image.

    Args:
        lvlm: the model.
        picture: the image, RGB.
        memory: where to keep what the decoder reads; None keeps nothing.
    """

    def __init__(self, lvlm: LVLM, picture: Image.Image, memory: PrefixCache | None) -> None:
        self.picture = picture
        self.memory = memory
        self.inputs = Inputs(lvlm.model, lvlm.processor, picture)
        self._lvlm = lvlm

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


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that a GPU's memory or the machine's is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

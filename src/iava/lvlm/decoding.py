"""Decoding a batch of questions about one image, and halving the batch when memory is full."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.prefix_cache import Memory
from iava.engine.probe import unchanged
from iava.engine.qformer import looks
from iava.errors import IavaError
from iava.lvlm.answers import Answer
from iava.lvlm.explanation import CANDIDATES, explanation, selected_shares
from iava.lvlm.inputs import Inputs
from iava.methods import METHODS, check_settings
from iava.methods.base import Method
from iava.methods.checks import check_question, check_whole
from iava.methods.trace import Trace


@dataclass(frozen=True)
class Request:
    """How questions are answered; see `LVLM.ask_many` for the fields."""

    method: str | Method
    max_new_tokens: int
    explain: bool
    seed: int | None
    settings: Mapping[str, Any] = field(default_factory=dict)


class BatchDecoder:
    """Decodes batches of questions with one model.

    Args:
        model: the vision-language model.
        processor: its processor.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.model: Any = model
        self.processor: Any = processor
        self._warned = False

    def method(self, name: str, settings: Mapping[str, Any]) -> Method:
        """Builds a method for this model; see `LVLM.method`."""
        check_settings(name, settings)
        return METHODS[name](**settings).bind(self.model, self.processor)

    def prompt(self, question: str) -> str:
        """Renders a question about one image; see `LVLM.prompt`."""
        if not self.processor.chat_template:
            # The processors of InstructBLIP, BLIP-2 and PaliGemma put the image before the text.
            return question
        turn: Any = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        return self.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    def answers(
        self, inputs: Inputs, cache: Memory | None, questions: Sequence[str], request: Request, start: float
    ) -> list[Answer]:
        """Answers the questions in one batch. A batch that does not fit into memory is halved.

        Args:
            inputs: of the image that is asked about.
            cache: prefix cache of that image; None keeps nothing.
            questions: without a template around them.
            request: how they are answered.
            start: `time.perf_counter()` when the call began.

        Raises:
            IavaError: see `LVLM.ask_many`.
        """
        try:
            return self._batch(inputs, cache, questions, request, start)
        except RuntimeError as error:
            if len(questions) < 2 or not out_of_memory(error):
                raise
        # Outside the handler: its traceback keeps the tensors that filled the memory.
        if not self._warned:
            print("iava: out of memory: the questions of an image are asked in smaller batches", file=sys.stderr)
            self._warned = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(questions) // 2
        # With one seed for both, the halves would draw the same numbers.
        later = request if request.seed is None else replace(request, seed=request.seed + half)
        first = self.answers(inputs, cache, questions[:half], request, start)
        return first + self.answers(inputs, cache, questions[half:], later, time.perf_counter())

    def _batch(
        self, inputs: Inputs, cache: Memory | None, questions: Sequence[str], request: Request, start: float
    ) -> list[Answer]:
        self._check(questions)
        check_whole("max_new_tokens", request.max_new_tokens, low=1)
        method = self._bound(request)
        if not questions:
            return []
        asked = [method.reword(question.strip()) for question in questions]
        self._check(asked)
        batch = inputs.of([self.prompt(question) for question in asked], pixels=method.reads_pixels)
        trace = Trace(top=CANDIDATES if request.explain else 0)
        watch: AbstractContextManager[list[torch.Tensor]] = looks(self.model) if request.explain else nullcontext([])
        seeded = request.seed is not None
        with unchanged(self.model), watch as cross_attention, torch.random.fork_rng(enabled=seeded):
            if request.seed is not None:
                torch.manual_seed(request.seed)
            sequences = self.model.generate(
                **batch,
                custom_generate=partial(method, trace=trace, memory=cache),
                max_new_tokens=request.max_new_tokens,
                do_sample=False,
                num_beams=1,
            )
        new = sequences[:, batch["input_ids"].shape[1] :].cpu()
        assert trace.logits is not None
        logits, selected = trace.logits.cpu(), selected_shares(trace, len(questions))
        seconds = (time.perf_counter() - start) / len(questions)
        answers = []
        for row, ids in enumerate(new.tolist()):
            tokens = self._until_end(ids)
            explained = None
            if request.explain:
                steps = min(len(tokens) + 1, len(ids))
                about = self.model, self.processor, inputs.picture
                explained = explanation(*about, trace, cross_attention, row, steps)
            answers.append(
                Answer(
                    text=self.processor.decode(tokens, skip_special_tokens=True).strip(),
                    tokens=tokens,
                    method=method.name,
                    settings=method.settings(),
                    seconds=seconds,
                    logits=logits[row],
                    explanation=explained,
                    selected=selected[row],
                )
            )
        return answers

    def _bound(self, request: Request) -> Method:
        if isinstance(request.method, str):
            return self.method(request.method, request.settings)
        if request.settings:
            names = ", ".join(request.settings)
            raise IavaError(f"settings ({names}) belong to a method given by name, not to an object")
        return request.method.bind(self.model, self.processor)

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


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch reports that the memory of a GPU or of the machine is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

"""Decoding a batch of conversations, and halving the batch when memory is full."""

import math
import sys
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.caches.prefix_cache import PrefixCache
from iava.engine.hf import column_bytes, private_view
from iava.engine.images.qformer import cross_attention
from iava.errors import IavaError
from iava.lvlm.answers import Answer
from iava.lvlm.conversation import Conversation, prompt_text
from iava.lvlm.explanation import CANDIDATES, explanation, selected_shares
from iava.lvlm.generation import (
    Generation,
    asked_settings,
    checkpoint_settings,
    end_tokens,
    evaluation_mode,
    generation_config,
)
from iava.lvlm.inputs import Inputs
from iava.lvlm.rendered import rendered_prompts
from iava.methods.base import Method
from iava.methods.checks import MAX_SEED, check_whole
from iava.methods.registry import check_settings, resolve
from iava.methods.trace import Trace

NO_IMAGE = "no image: decoded plainly, because the method has nothing to contrast"
"""The note of an answer to a conversation that shows nothing."""


class OutOfMemoryError(IavaError, RuntimeError):
    """A single conversation does not fit into memory."""


@dataclass(frozen=True)
class Request:
    """How conversations are answered; see `LVLM.ask_many` for the fields."""

    method: str | Method
    max_new_tokens: int
    explain: bool
    seed: int | None
    generation: Generation = None
    settings: Mapping[str, Any] = field(default_factory=dict)


Asked = tuple[Conversation, int | None]
"""A conversation, and the seed of its draws; None: torch's global state decides."""


def draw_seed(seed: int, conversation: Conversation, earlier: int = 0) -> int:
    """The seed of a conversation's own draws.

    Args:
        seed: of the call.
        conversation: what is answered.
        earlier: how often the same call has asked the same before.
    """
    return zlib.crc32(f"{seed} {earlier} {conversation.texts}".encode("utf-8", "surrogatepass"))


class BatchDecoder:
    """Decodes batches of conversations with one model.

    Args:
        model: the vision-language model.
        processor: its processor.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.model: Any = model
        self.processor: Any = processor
        self._said: set[str] = set()

    def method(self, name: str, settings: Mapping[str, Any]) -> Method:
        """Builds a method for this model; see `LVLM.method`."""
        check_settings(name, settings)
        made = resolve(name)(**settings).bind(self.model, self.processor)
        # A method of another package is recorded under the name that finds it again.
        made.name = name
        return made

    def answers(
        self,
        inputs: Inputs,
        cache: PrefixCache | None,
        conversations: Sequence[Conversation],
        request: Request,
        start: float,
    ) -> list[Answer]:
        """Answers conversations, each on its own, in one batch; a batch that does not fit into memory is halved.

        Conversations without an image are decoded plainly, in a batch of their own.

        Args:
            inputs: builds the inputs of these conversations.
            cache: prefix cache of their image; None keeps nothing.
            conversations: what is answered.
            request: how.
            start: `time.perf_counter()` when the call began.

        Raises:
            IavaError: see `LVLM.ask_many`.
        """
        check_whole("max_new_tokens", request.max_new_tokens, low=1)
        if request.seed is not None:
            check_whole("seed", request.seed, low=0, high=MAX_SEED)
        method = self._bound(request)
        self._say_settings(request)
        rewordings = [one.asking(method.reword(one.question), *one.question_texts[1:]) for one in conversations]
        for one in rewordings:
            self._check(one)
        asked = list(zip(rewordings, _draw_seeds(conversations, request.seed), strict=True))
        answers: dict[int, Answer] = {}
        for shows in (True, False):
            rows = [number for number, one in enumerate(rewordings) if bool(one.images) == shows]
            if rows:
                run = partial(self._batch, inputs, cache) if shows else self._plain_batch
                found = self._halved(run, [asked[row] for row in rows], method, request, start)
                answers |= dict(zip(rows, found, strict=True))
        return [answers[row] for row in range(len(rewordings))]

    def _halved(self, run: Any, asked: list[Asked], method: Method, request: Request, start: float) -> list[Answer]:
        """The answers of one batch or, where memory does not hold it, of its halves."""
        try:
            return run(asked, method, request, start)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Outside the handler: its traceback keeps the tensors that filled the memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(asked) == 1:
            raise OutOfMemoryError(
                "out of memory, even for one question alone: use a smaller image, fewer new tokens or a quantized model"
            )
        self._say("out of memory: the questions of an image are asked in smaller batches")
        half = len(asked) // 2
        first = self._halved(run, asked[:half], method, request, start)
        return first + self._halved(run, asked[half:], method, request, time.perf_counter())

    def _batch(
        self,
        inputs: Inputs,
        cache: PrefixCache | None,
        asked: list[Asked],
        method: Method,
        request: Request,
        start: float,
    ) -> list[Answer]:
        conversations = [one for one, _ in asked]
        texts = [prompt_text(self.processor, one) for one in conversations]
        batch = inputs.of(texts, [one.images for one in conversations], pixels=method.reads_pixels)
        most = len(asked) if inputs.picture is None else self._most_rows(method, batch["input_ids"].shape[1])
        if len(asked) > most:
            size = math.ceil(len(asked) / math.ceil(len(asked) / most))
            # The groups share the image's prefix.
            cache, answers = PrefixCache() if cache is None else cache, []
            for first in range(0, len(asked), size):
                answers += self._batch(inputs, cache, asked[first : first + size], method, request, start)
                start = time.perf_counter()
            return answers
        trace = Trace(top=CANDIDATES if request.explain else 0)
        rendered = rendered_prompts(self.model, self.processor, inputs, conversations, batch)
        decoded = partial(method, trace=trace, prefix_cache=cache, conversations=rendered)
        watch: AbstractContextManager[list[torch.Tensor]] = (
            cross_attention(self.model) if request.explain else nullcontext([])
        )
        with watch as qformer_attention:
            new = self._generated(batch, decoded, asked, request)
        selected = selected_shares(trace, len(conversations))
        answers = self._made(new, method, trace, request, start)
        answers = [replace(answer, selected=share) for answer, share in zip(answers, selected, strict=True)]
        if not request.explain:
            return answers
        explained = []
        for row, (answer, one) in enumerate(zip(answers, conversations, strict=True)):
            steps = min(len(answer.tokens) + 1, new.shape[1])
            picture = one.images[0] if len(one.images) == 1 else None
            found = explanation(self.model, self.processor, picture, trace, qformer_attention, row, steps)
            explained.append(replace(answer, explanation=found))
        return explained

    def _most_rows(self, method: Method, columns: int) -> int:
        """How many questions about an image are asked at once, by the number of columns of their prompts.

        What contrast branches hold of it for each question takes at most half as many bytes as the model.
        """
        if method.own_images == 0:
            return sys.maxsize
        each = method.own_images * columns * column_bytes(self.model)
        return max(self.model.get_memory_footprint() // 2 // each, 1)

    def _plain_batch(self, asked: list[Asked], method: Method, request: Request, start: float) -> list[Answer]:
        """Answers conversations without an image, by drawing tokens as the method does, else greedily."""
        texts = [prompt_text(self.processor, one) for one, _ in asked]
        batch = Inputs(self.model, self.processor).of(texts, pixels=True)
        trace = Trace(top=CANDIDATES if request.explain else 0)
        new = self._generated(batch, partial(method.plain(), trace=trace), asked, request)
        return [replace(answer, note=NO_IMAGE) for answer in self._made(new, method, trace, request, start)]

    def _generated(self, batch: dict[str, Any], method: Any, asked: list[Asked], request: Request) -> torch.Tensor:
        """(B, T) the new tokens."""
        limit, device = request.max_new_tokens, batch["input_ids"].device
        seeds = [seed for _, seed in asked if seed is not None]
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds] or None
        config = generation_config(self.model, self.processor.tokenizer, limit, request.generation)
        with evaluation_mode(self.model):
            sequences = private_view(self.model).generate(
                **batch,
                custom_generate=partial(method, seed=request.seed, generators=generators),
                generation_config=config,
            )
        return sequences[:, batch["input_ids"].shape[1] :].cpu()

    def _made(self, new: torch.Tensor, method: Method, trace: Trace, request: Request, start: float) -> list[Answer]:
        assert trace.logits is not None
        ends = set(end_tokens(self.model, self.processor.tokenizer))
        logits, seconds = trace.logits.cpu(), (time.perf_counter() - start) / len(new)
        answers = []
        for row, ids in enumerate(new.tolist()):
            stop = next((position for position, token in enumerate(ids) if token in ends), len(ids))
            answers.append(
                Answer(
                    text=self.processor.decode(ids[:stop], skip_special_tokens=True).strip(),
                    tokens=ids[:stop],
                    method=method.name,
                    settings=method.settings(),
                    seconds=seconds,
                    logits=logits[row],
                    generation=asked_settings(self.model, request.generation),
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

    def _check(self, conversation: Conversation) -> None:
        special = [str(token) for token in self.processor.tokenizer.added_tokens_decoder.values() if token.special]
        for text in conversation.texts:
            try:
                text.encode()
            except UnicodeEncodeError:
                raise IavaError(f"the text {text!r} has no UTF-8 form: leave out its lone surrogates") from None
            for token in special:
                if token in text:
                    where = "question" if text == conversation.question else "conversation"
                    raise IavaError(
                        f"the {where} contains {token!r}, which means something else to the model: leave it out"
                    )

    def _say_settings(self, request: Request) -> None:
        """Says once what the checkpoint's generation config would change, if nobody asked for it."""
        found = checkpoint_settings(self.model)
        if request.generation is None and found:
            listed = ", ".join(f"{name}={value!r}" for name, value in found.items())
            self._say(f'the checkpoint asks for {listed}, which is left out: generation="checkpoint" applies it')

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            print(f"iava: {line}", file=sys.stderr)


def _draw_seeds(conversations: Sequence[Conversation], seed: int | None) -> list[int | None]:
    if seed is None:
        return [None] * len(conversations)
    seen: Counter[str] = Counter()
    seeds: list[int | None] = []
    for one in conversations:
        seeds.append(draw_seed(seed, one, seen[str(one.texts)]))
        seen[str(one.texts)] += 1
    return seeds


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU or of the machine is full, as torch, Python or `OutOfMemoryError` says."""
    kinds = (torch.OutOfMemoryError, MemoryError, OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)

"""Decodes a batch of rows with the model."""

import json
import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from iava.engine.hf import private_view
from iava.engine.images.qformer import cross_attention
from iava.errors import IavaError
from iava.lvlm.answers import Answer
from iava.lvlm.conversation import Conversation, prompt_text
from iava.lvlm.decoding import draw_seed
from iava.lvlm.explanation import CANDIDATES, explanation, selected_shares
from iava.lvlm.generation import end_tokens, evaluation_mode, generation_config
from iava.lvlm.inputs import Inputs
from iava.lvlm.memory import ImageMemory
from iava.lvlm.model import LVLM
from iava.lvlm.rendered import rendered_prompts
from iava.methods.base import Method
from iava.methods.trace import Trace
from iava.serve.batching.rows import BatchRow
from iava.serve.batching.tokens import TokenProbability
from iava.serve.errors import ApiError
from iava.serve.limits import Limits


class RowDecoder:
    """Decodes batches of rows with one model, in one thread.

    The answer of a row is that of `LVLM.chat`, whatever other rows its batch has.

    Args:
        lvlm: the model.
        limits: limits of the server on tokens and on the images that are kept for later batches.
    """

    def __init__(self, lvlm: LVLM, limits: Limits) -> None:
        self._lvlm = lvlm
        self._model: Any = lvlm.model
        self._processor: Any = lvlm.processor
        self.memory = ImageMemory(limits.image_bytes)
        self._window = int(lvlm.model.config.get_text_config().max_position_embeddings)
        # The last position is for the first token of the answer.
        self._prompt_tokens = min(limits.prompt_tokens or self._window, self._window - 1)
        self._new_tokens = limits.new_tokens
        self._ends = set(end_tokens(lvlm.model, self._processor.tokenizer))
        tokens = self._processor.tokenizer.added_tokens_decoder.values()
        self._special = [str(token) for token in tokens if token.special]

    def method(self, name: str, settings: dict[str, Any]) -> Method:
        """Builds a method for the model; see `LVLM.method`."""
        return self._lvlm.method(name, **settings)

    def token_text(self, token: int) -> str:
        """Decodes one token."""
        return self._processor.decode([token])

    def check(self, conversation: Conversation) -> None:
        """Checks that no text contains a special token, which the model would not read as text.

        Raises:
            IavaError: if a text contains one; the message names it.
        """
        for text in conversation.texts:
            for token in self._special:
                if token in text:
                    raise IavaError(f"a text contains {token!r}, which the model does not read as text: leave it out")

    def decode(self, rows: Sequence[BatchRow]) -> None:
        """Decodes rows of one plan in one batch, and gives each row its tokens.

        Raises:
            IavaError: if the method refuses the model or a prompt.
            RuntimeError: if memory is full.
        """
        try:
            self._decode(rows)
        except Exception:
            # The images that are kept may have filled the memory.
            self.memory.clear()
            raise
        finally:
            self.memory.trim()

    def _decode(self, rows: Sequence[BatchRow]) -> None:
        start, plan = time.monotonic(), rows[0].plan
        if plan.has_images:
            # Rows of one image stand together, because the cache then writes its keys and values at once.
            rows = sorted(rows, key=lambda row: id(row.conversation.images[-1]))
        asked = self.method(plan.method, {name: json.loads(value) for name, value in plan.settings})
        # A conversation without an image has nothing to contrast.
        method = asked if plan.has_images else asked.plain()
        served, inputs, made = self._batch(rows, asked, pixels=method.reads_pixels or not plan.has_images)
        if not served:
            return
        trace = Trace(top=CANDIDATES if plan.explain else 0)
        options: dict[str, Any] = {
            "trace": trace,
            "unfinished": lambda: [number for number, row in enumerate(served) if not row.is_over],
        }
        images = [row.conversation.images for row in served]
        if plan.has_images:
            conversations = [_reworded(row.conversation, asked) for row in served]
            prompts = rendered_prompts(self._model, self._processor, inputs, conversations, made)
            options |= {"conversations": prompts, "prefix_cache": self.memory.prefix_cache(images)}
        watch: AbstractContextManager[list[torch.Tensor]] = (
            cross_attention(self._model) if plan.explain else nullcontext([])
        )
        longest = max(row.longest for row in served)
        with evaluation_mode(self._model), watch as qformer_attention:
            private_view(self._model).generate(
                **made,
                custom_generate=partial(method, **options),
                generation_config=generation_config(self._model, self._processor.tokenizer, longest, None),
                logits_processor=[_Choice(served, method)],
                stopping_criteria=[_Told(served)],
            )
        if plan.has_images:
            self.memory.keep_prefixes(images, options["prefix_cache"])
        if plan.explain:
            self._explain(served, method, trace, qformer_attention, (time.monotonic() - start) / len(served))

    def _explain(
        self,
        rows: Sequence[BatchRow],
        method: Method,
        trace: Trace,
        qformer_attention: list[torch.Tensor],
        seconds: float,
    ) -> None:
        """Sends the complete answers with their explanations."""
        assert trace.logits is not None
        shares = selected_shares(trace, len(rows))
        for number, row in enumerate(rows):
            if row.reason is None:
                continue
            # The last step may have chosen the end token, which is not part of the answer.
            steps = min(len(row.tokens) + (row.reason == "stop"), len(trace.steps))
            image = row.conversation.images[0]
            answer = Answer(
                text=self._processor.decode(row.tokens, skip_special_tokens=True).strip(),
                tokens=row.tokens,
                method=method.name,
                settings=method.settings(),
                seconds=seconds,
                logits=trace.logits[number].cpu(),
                explanation=explanation(self._model, self._processor, image, trace, qformer_attention, number, steps),
                selected=shares[number],
            )
            row.done(answer)

    def _batch(
        self, rows: Sequence[BatchRow], method: Method, *, pixels: bool
    ) -> tuple[list[BatchRow], Inputs, dict[str, Any]]:
        """Returns the rows that can be served, and their inputs. The other rows fail with the reason."""
        inputs = Inputs(self._model, self._processor, memory=self.memory)
        texts = [prompt_text(self._processor, _reworded(row.conversation, method)) for row in rows]
        made = inputs.of(texts, [row.conversation.images for row in rows], pixels=pixels)
        lengths = made["attention_mask"].sum(dim=1).tolist()
        served = []
        for row, length in zip(rows, lengths, strict=True):
            refusal = self._refusal(row, length)
            if refusal is not None:
                row.fail(refusal)
            else:
                decode = partial(self._processor.decode, skip_special_tokens=True)
                longest = row.decoding.max_new_tokens or min(self._new_tokens, self._window - length)
                row.begin(decode, self._ends, length, longest)
                served.append(row)
        if served and len(served) < len(rows):
            return self._batch(served, method, pixels=pixels)
        return served, inputs, made

    def _refusal(self, row: BatchRow, prompt_tokens: int) -> ApiError | None:
        new_tokens = row.decoding.max_new_tokens or 1
        if prompt_tokens > self._prompt_tokens:
            return ApiError(
                400,
                f"the prompt has {prompt_tokens} tokens: at most {self._prompt_tokens} are served",
                param="messages",
                code="context_length_exceeded",
            )
        if prompt_tokens + new_tokens > self._window:
            return ApiError(
                400,
                f"the prompt's {prompt_tokens} tokens and {new_tokens} new ones are more than the model's "
                f"{self._window} positions: ask for a shorter answer",
                param="max_tokens",
                code="context_length_exceeded",
            )
        return None


def _reworded(conversation: Conversation, method: Method) -> Conversation:
    """The conversation with the question in the wording of the method."""
    return conversation.asking(method.reword(conversation.question), *conversation.question_texts[1:])


class _Choice(LogitsProcessor):
    """Draws the tokens of rows that sample, each with its own generator, and records probabilities.

    A row therefore draws the same tokens in every batch.
    """

    def __init__(self, rows: Sequence[BatchRow], method: Method) -> None:
        self._rows = rows
        self._generators: list[torch.Generator | None] = [None] * len(rows)
        self._warpers = [_warpers(row, method) for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        for number, row in enumerate(self._rows):
            if row.is_over:
                continue
            logits = scores[number].clone()
            if self._warpers[number] is not None:
                token = self._drawn(number, input_ids, logits)
                scores[number] = -torch.inf
                scores[number, token] = 0.0
            if row.decoding.top_logprobs is not None:
                row.next_probability = _probability(logits, int(scores[number].argmax()), row.decoding.top_logprobs)
        return scores

    def _drawn(self, number: int, input_ids: torch.Tensor, logits: torch.Tensor) -> int:
        warped: Any = logits[None]
        for warper in self._warpers[number] or ():
            warped = warper(input_ids[number : number + 1], warped)
        generator = self._generators[number]
        if generator is None:
            row = self._rows[number]
            seed = row.decoding.seed
            seed = random.getrandbits(63) if seed is None else draw_seed(seed, row.conversation)
            self._generators[number] = generator = torch.Generator(logits.device).manual_seed(seed)
        return int(torch.multinomial(warped.softmax(dim=-1), 1, generator=generator))


def _warpers(row: BatchRow, method: Method) -> list[LogitsProcessor] | None:
    """The logits processors before the draw of a row; None if the row takes the most probable token."""
    decoding = row.decoding
    found: list[LogitsProcessor] = []
    if not (decoding.temperature or (decoding.temperature is None and method.sampling)):
        return None
    if decoding.temperature is not None:
        found.append(TemperatureLogitsWarper(float(decoding.temperature)))
    if decoding.top_p is not None:
        found.append(TopPLogitsWarper(float(decoding.top_p)))
    return [*found, *method.warpers()]


def _probability(logits: torch.Tensor, token: int, top: int) -> TokenProbability:
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(min(top, int(logprobs.isfinite().sum())))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenProbability(token, float(logprobs[token]), list(pairs))


class _Told(StoppingCriteria):
    """Gives each row its token, and stops the rows that are over."""

    def __init__(self, rows: Sequence[BatchRow]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.take(token)
        return torch.tensor([row.is_over for row in self._rows], device=input_ids.device)

"""Decoding a batch of rows: the one place that knows how the model is asked."""

import copy
import json
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from iava.engine.probe import unchanged
from iava.engine.qformer import looks
from iava.lvlm.answers import Answer
from iava.lvlm.explanation import CANDIDATES, explanation, shares
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.methods.trace import Trace
from iava.serve.errors import ApiError
from iava.serve.rows import Row
from iava.serve.tokens import TokenProbability


class BatchDecoder:
    """Decodes batches with one model; used by one thread.

    Args:
        lvlm: the model.
        prompt_tokens: most tokens of a prompt; None: what the model's positions hold.
    """

    def __init__(self, lvlm: LVLM, prompt_tokens: int | None = None) -> None:
        self._lvlm = lvlm
        self._model: Any = lvlm.model
        self._processor: Any = lvlm.processor
        self.window = int(lvlm.model.config.get_text_config().max_position_embeddings)
        self.prompt_tokens = min(prompt_tokens or self.window, self.window)
        ends = lvlm.model.generation_config.eos_token_id
        tokens = self._processor.tokenizer.added_tokens_decoder.values()
        self._special = [str(token) for token in tokens if token.special]
        self._ends = set(ends if isinstance(ends, list) else [ends])

    def method(self, name: str, settings: dict[str, Any]) -> Method:
        """Builds a method for the model; see `LVLM.method`."""
        return self._lvlm.method(name, **settings)

    def text(self, conversation: list[dict[str, Any]]) -> str:
        """Renders a conversation with the chat template."""
        return self._processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)

    def token_text(self, token: int) -> str:
        """The text of one token."""
        return self._processor.decode([token])

    def check_text(self, text: str, field: str) -> None:
        """Refuses text that holds a special token, which the model would not read as text.

        Raises:
            ApiError: 400.
        """
        for token in self._special:
            if token in text:
                raise ApiError(
                    400, f"{field} contains {token!r}, which the model does not read as text: leave it out", param=field
                )

    def check_length(self, tokens: int, new_tokens: int) -> None:
        """Refuses prompts that are too long.

        Raises:
            ApiError: 400.
        """
        if tokens > self.prompt_tokens:
            raise ApiError(
                400,
                f"the prompt has {tokens} tokens: at most {self.prompt_tokens} are served",
                param="messages",
                code="context_length_exceeded",
            )
        if tokens + new_tokens > self.window:
            raise ApiError(
                400,
                f"the prompt's {tokens} tokens and {new_tokens} new ones are more than the model's {self.window} "
                "positions: ask for a shorter answer",
                param="max_tokens",
                code="context_length_exceeded",
            )

    def decode(self, rows: Sequence[Row]) -> None:
        """Decodes rows of one plan in one batch; tells each row its tokens.

        Raises:
            IavaError: if the method refuses the model or a prompt.
            RuntimeError: if memory is full.
        """
        plan = rows[0].plan
        method = self.method(plan.method, {name: json.loads(value) for name, value in plan.settings})
        if not plan.has_images and (method.has_second() or type(method).steer is not Method.steer):
            # Without an image there is nothing to contrast.
            method = self.method("greedy", {})
        rows, inputs = self._inputs(rows, method)
        if not rows:
            return
        choice = _Choice(rows, method)
        trace = Trace(top=CANDIDATES if plan.explain else 0)
        watched: AbstractContextManager[list[torch.Tensor]] = looks(self._model) if plan.explain else nullcontext([])
        with unchanged(self._model), watched as runs:
            self._model.generate(
                **inputs,
                custom_generate=partial(method, trace=trace),
                max_new_tokens=max(row.decoding.max_new_tokens for row in rows),
                do_sample=False,
                num_beams=1,
                logits_processor=[choice],
                stopping_criteria=[_Told(rows)],
            )
        if plan.explain:
            for number, row in enumerate(rows):
                if row.reason is not None:
                    row.done(self._explained(row, number, method, trace, runs))

    def _inputs(self, rows: Sequence[Row], method: Method) -> tuple[list[Row], dict[str, Any]]:
        texts = [self.text(_reworded(row.conversation, method)) for row in rows]
        images = [[picture.image for picture in row.pictures] for row in rows]
        made = self._processor(
            text=texts,
            images=images if rows[0].plan.has_images else None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        lengths = made["attention_mask"].sum(dim=1).tolist()
        served = []
        for row, length in zip(rows, lengths, strict=True):
            try:
                self.check_length(length, row.decoding.max_new_tokens)
            except ApiError as error:
                row.fail(error)
                continue
            row.begin(partial(self._processor.decode, skip_special_tokens=True), self._ends, length)
            served.append(row)
        if served and len(served) < len(rows):
            return self._inputs(served, method)
        return served, dict(made.to(self._model.device, dtype=self._model.dtype))

    def _explained(self, row: Row, number: int, method: Method, trace: Trace, runs: list[torch.Tensor]) -> Answer:
        assert trace.logits is not None
        assert row.last is not None
        steps = len(row.tokens) + (row.reason == "stop")
        return Answer(
            text=self._processor.decode(row.tokens, skip_special_tokens=True).strip(),
            tokens=row.tokens,
            method=method.name,
            settings=method.settings(),
            seconds=row.last - row.arrived,
            logits=trace.logits[number].cpu(),
            explanation=explanation(
                self._model, self._processor, row.pictures[0].image, trace, runs, number, min(steps, len(trace.steps))
            ),
            selected=shares(trace, number + 1)[number],
        )


def _reworded(conversation: list[dict[str, Any]], method: Method) -> list[dict[str, Any]]:
    """The conversation, with the last user text as the method words it."""
    reworded = copy.deepcopy(conversation)
    last = next(turn for turn in reversed(reworded) if turn["role"] == "user")
    texts = [part for part in last["content"] if part["type"] == "text"]
    if texts:
        texts[-1]["text"] = method.reword(texts[-1]["text"])
    return reworded


class _Choice(LogitsProcessor):
    """Chooses the tokens of rows that draw, each with its own generator, and notes probabilities.

    What a row draws is then the same in every batch.
    """

    def __init__(self, rows: Sequence[Row], method: Method) -> None:
        self._rows = rows
        self._warpers = method.warpers()
        self._draws = [self._does_draw(row, method) for row in rows]
        self._generators = [_generator(row.decoding.seed) for row in rows]

    @staticmethod
    def _does_draw(row: Row, method: Method) -> bool:
        if row.decoding.temperature is not None:
            return row.decoding.temperature > 0
        return bool(method.sampling)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        for number, row in enumerate(self._rows):
            if row.is_over:
                continue
            logits = scores[number].clone()
            if self._draws[number]:
                token = self._drawn(number, row, input_ids, logits)
                scores[number] = -torch.inf
                scores[number, token] = 0.0
            if row.decoding.top_logprobs is not None:
                token = int(scores[number].argmax())
                row.next_probability = _probability(logits, token, row.decoding.top_logprobs)
        return scores

    def _drawn(self, number: int, row: Row, input_ids: torch.Tensor, logits: torch.Tensor) -> int:
        warped = logits[None]
        warpers = list(self._warpers)
        if row.decoding.temperature:
            warpers.append(TemperatureLogitsWarper(float(row.decoding.temperature)))
        if row.decoding.top_p is not None:
            warpers.append(TopPLogitsWarper(float(row.decoding.top_p)))
        for warper in warpers:
            warped = warper(input_ids[number : number + 1], warped)
        probabilities = warped.softmax(dim=-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generators[number]))


def _generator(seed: int | None) -> torch.Generator:
    return torch.Generator().manual_seed(random.getrandbits(63) if seed is None else seed % 2**63)


def _probability(logits: torch.Tensor, token: int, top: int) -> TokenProbability:
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(min(top, int(logprobs.isfinite().sum())))
    return TokenProbability(
        token, float(logprobs[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    )


class _Told(StoppingCriteria):
    """Tells each row its token; rows that are over stop."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.take(token)
        return torch.tensor([row.is_over for row in self._rows], device=input_ids.device)

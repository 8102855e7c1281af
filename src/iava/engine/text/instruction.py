"""Another text in the place of a prompt's question, exact to the token.

The general pass reads the same conversation with the text of the last user turn replaced by the general instruction.
Everything else stays, token by token: system prompt, earlier turns, images, the order of image and text, white space,
and the beginning of the answer. The first text of the turn is replaced. Other texts of that turn, such as an ending
behind the image, are removed. White space around a text is not a part of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from iava.engine.edit import Edit
from iava.engine.text.chat_format import SystemPrompt, find_all, format_of, furniture_of, pattern_of, tokenizer_lock
from iava.errors import IavaError

if TYPE_CHECKING:
    from iava.engine.prompt import Prompt

TEXT_PLACES = ("question", "image", "system")
"""Where `WrittenPrompt.prefixed` puts a text."""

Span = tuple[int, int]
"""Characters of a prompt's text, from the first to behind the last."""
Change = tuple[int, int, str]
"""Characters of a prompt's text, and what stands there instead."""

_CHAT = "ask with iava.load(model, processor).chat"
_ADVICE = f"build it with processor.apply_chat_template, or {_CHAT}"


class EditablePrompt(Protocol):
    """A prompt whose question can be replaced; see `WrittenPrompt` for what the methods do."""

    @property
    def question(self) -> str: ...
    def replaced(self, text: str) -> list[Edit]: ...
    def prefixed(self, text: str, place: str = "question") -> list[Edit]: ...


def editable(prompt: "Prompt", processor: Any) -> list[EditablePrompt]:
    """The prompts of a batch, one for each row: as the caller knows them, or as their tokens say."""
    rows = len(prompt.input_ids)
    if prompt.conversations is not None:
        # Beams and several answers repeat each prompt.
        times = rows // len(prompt.conversations)
        return [one for one in prompt.conversations for _ in range(times)]
    token = prompt.vlm.config.image_token_id
    return [WrittenPrompt(processor, prompt.ids(row), token) for row in range(rows)]


def edits_between(ids: Sequence[int], others: Sequence[int], image_token_id: int) -> list[Edit] | None:
    """The smallest edits that turn one prompt's tokens into another's.

    Returns:
        One edit for each text between image tokens that differs; None if the image tokens themselves differ.
    """
    mine, theirs = ([(n, id) for n, id in enumerate(some) if id == image_token_id] for some in (ids, others))
    if len(mine) != len(theirs):
        return None
    edits, start, other = [], 0, 0
    for (stop, _), (end, _) in zip([*mine, (len(ids), 0)], [*theirs, (len(others), 0)], strict=True):
        old, new = list(ids[start:stop]), list(others[other:end])
        if old != new:
            head, tail = _same(old, new)
            edits.append(Edit(start + head, stop - tail, new[head : len(new) - tail]))
        start, other = stop + 1, end + 1
    return edits


@dataclass(frozen=True)
class _Gap:
    """The text between two special tokens of a prompt; it may be empty.

    Args:
        before: the special token in front, as it is written; "" at the start of the prompt.
        behind: the special token behind it; "" at the end.
        start: index of its first token in the prompt.
        ids: its tokens.
        at: index of its first character in the text of the prompt.
        text: what its tokens say.
        image: whether an image token stands behind it.
    """

    before: str
    behind: str
    start: int
    ids: list[int]
    at: int
    text: str
    image: bool

    @property
    def end(self) -> int:
        return self.at + len(self.text)


class WrittenPrompt:
    """One prompt of which only the tokens are known.

    Args:
        processor: the model's processor. It must have a chat template, or place the image itself (InstructBLIP,
            BLIP-2, PaliGemma): then the whole text is the last user turn.
        ids: the tokens of the prompt, without padding.
        image_token_id: the id of the model's image tokens.

    Raises:
        IavaError: if there is no chat template, or it cannot be rendered.
    """

    def __init__(self, processor: Any, ids: Sequence[int], image_token_id: int) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._ids = list(ids)
        self._image_token_id = image_token_id
        self._format = format_of(processor, image_token_id)

    @property
    def question(self) -> str:
        """The first text of the last user turn, without white space around it.

        Raises:
            IavaError: if its place cannot be told.
        """
        start, stop = self._texts[0]
        return self._text[start:stop]

    def replaced(self, text: str) -> list[Edit]:
        """The prompt with a text in the place of the question.

        Args:
            text: such as "Describe this image.".

        Returns:
            Edits from left to right, one for each text that changes.

        Raises:
            IavaError: if the place of the question cannot be told.
        """
        first, *others = self._texts
        return self._edits([(*first, text), *((*other, "") for other in others)])

    def prefixed(self, text: str, place: str = "question") -> list[Edit]:
        """The prompt with a text in front of another part.

        Args:
            text: such as a role.
            place: "question": directly before the text of the last user turn. "image": directly before the first image
                of the turn that holds the last image, on a line of its own. "system": in place of the system prompt,
                or where one would stand.

        Raises:
            IavaError: if that place cannot be told, or there is none.
        """
        if place == "question":
            start = self._texts[0][0]
            return self._edits([(start, start, f"{text} ")])
        if place == "image":
            gap = self._gap_before_image()
            space = " " if gap.text.strip() and gap.text == gap.text.rstrip() else ""
            return self._edits([(gap.end, gap.end, f"{space}{text}\n")])
        if place == "system":
            return self._edits([self._system_change(text)])
        raise IavaError(f"place is {place!r}: it must be one of {', '.join(TEXT_PLACES)}")

    # ---- the text of the prompt ----

    @cached_property
    def _gaps(self) -> list[_Gap]:
        return self._gaps_of(self._ids)

    def _gaps_of(self, ids: list[int]) -> list[_Gap]:
        specials, image = self._format.specials, self._image_token_id
        # Image tokens are special tokens, and one of a run stands for all.
        tokens = [(n, id) for n, id in enumerate(ids) if id != image or n == 0 or ids[n - 1] != image]
        gaps, before, at = [], "", 0
        text: list[int] = []
        for n, id in [*tokens, (len(ids), -1)]:
            if id >= 0 and id not in specials:
                text.append(id)
                continue
            behind = specials.get(id, "")
            gap = _Gap(before, behind, n - len(text), text, at, self._decoded(text), id == image)
            gaps.append(gap)
            before, at, text = behind, gap.end + len(behind), []
        return gaps

    def _decoded(self, ids: list[int]) -> str:
        if not ids:
            return ""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @cached_property
    def _text(self) -> str:
        return "".join(gap.text + gap.behind for gap in self._gaps)

    # ---- where things stand in it ----

    @cached_property
    def _texts(self) -> list[Span]:
        """The texts of the last user turn, without white space and without what the processor writes for images."""
        start, stop = self._turn(len(self._text))
        spans = self._written(start, stop)
        if not spans:
            raise IavaError(f"the last user turn of the prompt has no text to replace: {_ADVICE}")
        return self._without_system(spans, start)

    def _turn(self, end: int) -> Span:
        """The contents of the last user turn that begins before `end`."""
        form, text = self._format, self._text
        opening, closing = _unescaped(form.opening), _unescaped(form.closing)
        opens = [span for span in find_all(form.opening, text) if span[1] <= end]
        closings, ends = find_all(form.closing, text), find_all(form.end, text)
        if form.opening and not opens:
            raise _unclear(f"no {opening!r} stands before it")
        if len(opens) > 1:
            between = [span for span in (*closings, *ends) if opens[-2][1] <= span[0] and span[1] <= opens[-1][0]]
            if not between:
                raise _unclear(f"{opening!r} stands twice without {closing!r} between")
        start = opens[-1][1] if opens else 0
        stops = [span[0] for span in closings if span[0] >= start]
        if len(stops) > 1 and end == len(text):
            raise _unclear(f"{closing!r} stands {len(stops)} times behind {opening!r}")
        stops += [span[0] for span in ends if span[0] >= start]
        if form.closing and not stops:
            raise _unclear(f"no {closing!r} stands behind it")
        return start, min(stops, default=len(text))

    def _written(self, start: int, stop: int) -> list[Span]:
        """The texts between two places, without white space and without what the processor writes for images."""
        parts = [(gap, max(start, gap.at), min(stop, gap.end)) for gap in self._gaps]
        spans = [self._stripped(low, high) for _, low, high in parts if self._text[low:high].strip() and low < high]
        known = self._tokenizer.added_tokens_decoder
        added = any(token in known for gap, low, high in parts if low < high for token in gap.ids)
        if len(spans) > 1 or added:
            spans = [span for span in map(self._bare, spans) if span[0] < span[1]]
        return spans

    def _stripped(self, start: int, stop: int) -> Span:
        text = self._text[start:stop]
        start += len(text) - len(text.lstrip())
        return start, start + len(text.strip())

    @cached_property
    def _furniture(self) -> str:
        if self._format.image_first:
            return ""
        return furniture_of(self._processor, lambda ids: [gap.text for gap in self._gaps_of(ids)])

    def _bare(self, span: Span) -> Span:
        """A text without what the processor writes for images on either side of it."""
        if not self._furniture:
            return span
        start, stop = span
        head = re.match(rf"(?:\s*(?:{self._furniture}))+", self._text[start:stop])
        start += head.end() if head else 0
        tail = re.search(rf"(?:(?:{self._furniture})\s*)+\Z", self._text[start:stop])
        return self._stripped(start, start + tail.start() if tail else stop)

    def _without_system(self, spans: list[Span], start: int) -> list[Span]:
        """Leaves out the system prompt, where the template writes it into the user's turn."""
        system = self._format.system
        if system is None or system.turn is None:
            return spans
        if system.turn == "first" and len(find_all(self._format.opening, self._text[:start])) > 1:
            return spans
        (first, last), marker = spans[0], system.behind.strip()
        if marker:
            found = self._text.rfind(marker, first, last)
            rest = self._stripped(found + len(marker), last)
            return spans if found < 0 else [span for span in (rest, *spans[1:]) if span[0] < span[1]]
        self._check_system(system, spans)
        return spans

    def _check_system(self, system: SystemPrompt, spans: list[Span]) -> None:
        """Refuses a user's turn that may begin with a system prompt that nothing but white space ends."""
        if len(spans) > 1 or any(system.behind in self._text[first:last] for first, last in spans):
            raise IavaError(
                "the chat template writes the system prompt into the user's turn, so it cannot be told from the "
                f"question: {_CHAT}"
            )

    def _gap_before_image(self) -> _Gap:
        """The text before the first image of the turn that holds the last image."""
        images = [number for number, gap in enumerate(self._gaps) if gap.image]
        if not images or self._format.image_first:
            raise IavaError('no text can stand before the image of this prompt: use place="question"')
        start = self._turn(self._gaps[images[-1]].end)[0]
        number = next(number for number in images if self._gaps[number].end >= start)
        # Special tokens directly before an image belong to it.
        while not self._gaps[number].text.strip() and self._gaps[number - 1].end >= start:
            number -= 1
        return self._gaps[number]

    def _system_change(self, text: str) -> Change:
        form, system = self._format, self._format.system
        if system is None:
            raise IavaError('the chat template of this processor has no system prompt: use place="question"')
        opens = find_all(form.opening, self._text)
        if system.turn is None:
            start, stop = 0, opens[0][0] if opens else 0
            free = stop
        else:
            first = system.turn == "first" and opens
            start, stop = self._turn(opens[0][1] if first else len(self._text))
            space = self._text[start:stop][: len(form.space)]
            free = start + len(space) if not space.strip() else start
            if not system.behind.strip():
                self._check_system(system, self._written(start, stop))
        there = self._system_span(system, start, stop)
        return (*there, text) if there else (free, free, system.before + text + system.behind)

    def _system_span(self, system: SystemPrompt, start: int, stop: int) -> Span | None:
        """The system prompt between two places, if there is one."""
        before, behind = pattern_of(system.before), pattern_of(system.behind)
        if before:
            opens = [span for span in find_all(before, self._text[:stop]) if span[0] >= start]
            if not opens:
                return None
            start = opens[0][1]
        elif system.turn is not None:
            return None
        closes = [span[0] for span in find_all(behind, self._text[:stop]) if span[0] >= start]
        spans = self._written(start, closes[-1] if closes else stop)
        return (spans[0][0], spans[-1][1]) if spans else None

    # ---- from text to tokens ----

    def _edits(self, changes: list[Change]) -> list[Edit]:
        """What the changes do to the tokens. Tokens do not merge across special tokens, so each gap is read alone."""
        edits = []
        for gap in self._gaps:
            inside = [change for change in changes if gap.at <= change[0] and change[1] <= gap.end]
            # Where an empty gap stands next to another, the first takes the change.
            changes = [change for change in changes if change not in inside]
            edit = self._edit(gap, inside)
            if edit is not None:
                edits.append(edit)
        return edits

    def _edit(self, gap: _Gap, changes: list[Change]) -> Edit | None:
        text = gap.text
        for start, stop, new in sorted(changes, reverse=True):
            text = text[: start - gap.at] + new + text[stop - gap.at :]
        if text == gap.text:
            return None
        # Some tokenizers put a space in front of a text, which their decoders take away again. Whether the first text
        # of a prompt gets one depends on who wrote the token that begins it.
        fronts = [gap.before + space for space in ("", " ")]
        if gap.start == 1:
            fronts = [*fronts, "", " "] if self._format.writes_start else ["", " ", *fronts]
        here = gap.ids
        pairs = [(self._encoded(gap, front + gap.text), self._encoded(gap, front + text)) for front in fronts]
        for old, made in sorted(pairs, key=lambda pair: pair[0] != here):
            head, tail = _same(old, made)
            last, moved = len(old) - tail, len(here) - len(old)
            # Other tokens may not be those of their text, such as an answer that was put together from tokens.
            if old[: last + 1] == here[: last + 1]:
                start, stop = head, last
            elif old[max(head - 1, 0) :] == here[max(head - 1 + moved, 0) :]:
                start, stop = head + moved, last + moved
            else:
                continue
            return Edit(gap.start + start, gap.start + stop, made[head : len(made) - tail])
        raise IavaError(
            f"the tokens of the prompt are not those of its text near {gap.text.strip()[:40]!r}: tokenize it as a whole"
        )

    def _encoded(self, gap: _Gap, text: str) -> list[int]:
        """The tokens of a text between special tokens, of which the first may be a part of the text."""
        with tokenizer_lock(self._tokenizer):
            ids = self._tokenizer.encode(text + gap.behind, add_special_tokens=False)
        written = bool(gap.before) and text.startswith(gap.before)
        return list(ids[written : len(ids) - bool(gap.behind)])


def _same(one: list[int], other: list[int]) -> tuple[int, int]:
    """How many tokens at the start, and how many at the end, are the same."""
    shorter = min(len(one), len(other))
    head = next((n for n in range(shorter) if one[n] != other[n]), shorter)
    tail = next((n for n in range(shorter - head) if one[-1 - n] != other[-1 - n]), shorter - head)
    return head, tail


def _unclear(reason: str) -> IavaError:
    return IavaError(f"the place of the question in the prompt cannot be told, because {reason}: {_ADVICE}")


def _unescaped(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern.replace(r"\s*", " "))

"""What a processor's chat template writes around the text of a turn, learnt by rendering short conversations.

Prompts that people write by hand differ from the template in white space, so the markers match any white space.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image

from iava.errors import IavaError, reason_of

_SYSTEM, _FIRST, _ANSWER, _LAST = "qzsystem", "qzfirst", "qzanswer", "qzlast"
# Wide and large enough that every processor that cuts images into tiles does so.
_PROBE_SIZE = (1024, 512)

_formats: WeakKeyDictionary[Any, tuple[tuple[Any, ...], "ChatFormat"]] = WeakKeyDictionary()
_locks: WeakKeyDictionary[Any, RLock] = WeakKeyDictionary()
_registry = RLock()


def tokenizer_lock(tokenizer: Any) -> RLock:
    """The lock for calls of a tokenizer, which changes its padding and truncation settings in each call."""
    with _registry:
        return _locks.setdefault(tokenizer, RLock())


@dataclass(frozen=True)
class SystemPrompt:
    """What a chat template writes around the system prompt.

    Args:
        before: the text before it: from the start of the prompt, or inside the user's turn that it stands in.
        behind: the text behind it, up to where the user's turn opens or its contents go on.
        turn: the user's turn that it stands in, "first" or "last"; None if it has a place of its own.
    """

    before: str
    behind: str
    turn: str | None


@dataclass(frozen=True)
class ChatFormat:
    """The markers of a chat template: regular expressions; "" where there is none.

    Args:
        specials: special token ids, and how each is written.
        opening: what stands before a user's text, such as "USER:".
        space: the white space that the template writes behind the opening.
        closing: what stands between a user's text and the answer, such as "ASSISTANT:".
        end: what ends a user's turn even without the start of an answer, such as "<|im_end|>".
        system: None if the template takes no system prompt.
        writes_start: whether the template writes the token that begins a prompt; if not, the tokenizer does.
        image_first: whether the processor itself puts the image before the text, without any template.
    """

    specials: dict[int, str]
    opening: str = ""
    space: str = ""
    closing: str = ""
    end: str = ""
    system: SystemPrompt | None = None
    writes_start: bool = False
    image_first: bool = False


def pattern_of(text: str) -> str:
    """A regular expression for a text with any white space, or none, between its words."""
    return r"\s*".join(re.escape(word) for word in text.split())


def find_all(pattern: str, text: str) -> list[tuple[int, int]]:
    """Where a pattern stands in a text; an empty pattern stands nowhere."""
    return [match.span() for match in re.finditer(pattern, text)] if pattern else []


def format_of(processor: Any, image_token_id: int) -> ChatFormat:
    """The markers of a processor's chat template; learnt once.

    Raises:
        IavaError: if there is no chat template and the processor does not place the image itself, or if the template
            cannot be rendered.
    """
    tokenizer = processor.tokenizer
    key = (str(processor.chat_template), len(tokenizer), image_token_id)
    with _registry:
        known = _formats.get(processor)
    if known is not None and known[0] == key:
        return known[1]
    specials = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    # A word that the tokenizer does not know is a part of a text.
    specials.pop(tokenizer.unk_token_id, None)
    specials[image_token_id] = str(tokenizer.convert_ids_to_tokens(image_token_id))
    if processor.chat_template:
        learnt = _learnt(processor, specials)
    elif places_image(processor, image_token_id):
        learnt = ChatFormat(specials, image_first=True)
    else:
        raise IavaError(
            "the processor has no chat template, so the question cannot be told from the rest of the prompt: set "
            "processor.chat_template"
        )
    with _registry:
        _formats[processor] = (key, learnt)
    return learnt


def turn(role: str, *parts: str | None) -> dict[str, Any]:
    """A message; None stands for an image."""
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    return {"role": role, "content": content}


def render(processor: Any, messages: Sequence[dict[str, Any]], **options: Any) -> str:
    """The text of a conversation, by default ready for an answer.

    Raises:
        IavaError: if the template fails.
    """
    options = {"add_generation_prompt": True} | options
    try:
        return str(processor.apply_chat_template(list(messages), tokenize=False, **options))
    except Exception as error:  # A template raises whatever its author wrote.
        raise IavaError(f"the chat template cannot render this conversation ({reason_of(error)})") from None


def furniture_of(processor: Any, texts: Callable[[list[int]], list[str]]) -> str:
    """A pattern of the text that the processor writes around an image and its tiles; "" if it writes none.

    Args:
        processor: with a chat template.
        texts: gives the texts between the special tokens of a prompt.
    """
    tokenizer = processor.tokenizer
    try:
        with tokenizer_lock(tokenizer):
            image = Image.new("RGB", _PROBE_SIZE)
            made = processor(text=[render(processor, [turn("user", None, _LAST)])], images=[[image]])
            plain = tokenizer.encode(render(processor, [turn("user", _LAST)]), add_special_tokens=False)
    except Exception:  # A processor raises whatever its author wrote.
        return ""
    usual = {word for text in texts(plain) for word in text.replace(_LAST, " ").split()}
    parts = [part for text in texts([int(id) for id in made["input_ids"][0]]) for part in text.split(_LAST)]
    found = {part.strip() for part in parts if not set(part.split()) <= usual}
    return "|".join(re.sub(r"\d+", r"\\d+", pattern_of(part)) for part in sorted(found, key=len, reverse=True))


def places_image(processor: Any, image_token_id: int) -> bool:
    """Whether a processor puts the image before a text that does not mention it."""
    try:
        with tokenizer_lock(processor.tokenizer):
            made = processor(text=["a"], images=[Image.new("RGB", (64, 64))])
    except Exception:  # A processor raises whatever its author wrote.
        return False
    return image_token_id in made["input_ids"][0]


def _learnt(processor: Any, specials: dict[int, str]) -> ChatFormat:
    split = _splitter(specials)
    alone = _parts(render(processor, [turn("user", _LAST)]), _LAST)
    ended = _parts(render(processor, [turn("user", _LAST)], add_generation_prompt=False), _LAST)
    if alone is None or ended is None:
        raise IavaError("the chat template does not write the user's text as it is: set processor.chat_template")
    opening, closing = split(alone[0]), split(alone[1])
    try:
        talk = [turn("user", _FIRST), turn("assistant", _ANSWER), turn("user", _LAST)]
        parts = _parts(render(processor, talk), _FIRST, _ANSWER, _LAST)
    except IavaError:
        parts = None
    if parts is not None:
        before_first, before_answer, before_last, behind_last = map(split, parts)
        opening = _common(before_first[::-1], before_last[::-1])[::-1]
        closing = _common(before_answer, behind_last)
    written, start = set(specials.values()), str(processor.tokenizer.bos_token or "")
    opens = "".join(_from_role(opening, written))
    return ChatFormat(
        specials,
        opening=pattern_of(opens),
        space=opens[len(opens.rstrip()) :],
        closing=pattern_of("".join(closing)),
        end=pattern_of(ended[1]) if written & set(split(ended[1])) else "",
        system=_system(processor, pattern_of(opens), split, written),
        writes_start=bool(start) and alone[0].startswith(start),
    )


def _system(processor: Any, opening: str, split: Callable[[str], list[str]], written: set[str]) -> SystemPrompt | None:
    try:
        parts = _parts(render(processor, [turn("system", _SYSTEM), turn("user", _FIRST)]), _SYSTEM, _FIRST)
    except IavaError:
        return None
    if parts is None:
        return None
    before, behind, _ = parts
    opens = find_all(opening, behind)
    if opens:
        start = str(processor.tokenizer.bos_token or "")
        pieces = [piece for piece in split(before) if piece != start]
        return SystemPrompt("".join(_from_role(pieces, written)), behind[: opens[-1][0]], None)
    opens = find_all(opening, before)
    inside = before[opens[-1][1] :].lstrip() if opens else before
    try:
        talk = [turn("system", _SYSTEM), turn("user", _FIRST), turn("assistant", _ANSWER), turn("user", _LAST)]
        last = _parts(render(processor, talk), _FIRST, _SYSTEM, _LAST) is not None
    except IavaError:
        last = False
    return SystemPrompt(inside, behind, "last" if last else "first")


def _parts(text: str, *words: str) -> list[str] | None:
    """What stands before, between and behind words; None if they do not stand there once each, in this order."""
    parts = re.split("|".join(map(re.escape, words)), text)
    return parts if re.findall("|".join(map(re.escape, words)), text) == list(words) else None


def _splitter(specials: dict[int, str]) -> Callable[[str], list[str]]:
    """Splits a text into special tokens, white space, and words."""
    tokens = "|".join(re.escape(token) for token in sorted(specials.values(), key=len, reverse=True))
    pattern = re.compile(rf"({tokens}|\s+)")
    return lambda text: [piece for piece in pattern.split(text) if piece]


def _common(one: list[str], other: list[str]) -> list[str]:
    """The pieces with which both begin; white space equals other white space."""
    same = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs and (mine.strip() or theirs.strip()):
            break
        same += 1
    return one[:same]


def _from_role(pieces: list[str], written: set[str]) -> list[str]:
    """Leaves out what ends the turn before: a marker begins at the special token that names the role, if any."""
    specials = [number for number, piece in enumerate(pieces) if piece in written]
    named = [n for n in specials if n + 1 < len(pieces) and pieces[n + 1].strip() and pieces[n + 1] not in written]
    return pieces[(named or specials or [0])[-1] :]

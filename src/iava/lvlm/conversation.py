"""Conversations as people write them for chat models, checked and rendered with the processor's chat template."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from iava.engine.text.chat_format import render
from iava.errors import IavaError, quoted
from iava.lvlm.images import ImageSource, read_image
from iava.methods.checks import check_question

Message = Mapping[str, Any]
"""{"role": "system", "user" or "assistant", "content": a text or a list of parts}; see `read_conversation`."""

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """A conversation that ends with a question, or with the beginning of its answer.

    Args:
        messages: each {"role", "content"} with content parts {"type": "image"} or {"type": "text", "text"}.
        images: RGB, in the order of the image parts.
    """

    messages: list[dict[str, Any]]
    images: list[Image.Image]

    @property
    def prefilled(self) -> bool:
        """Whether the last message is the beginning of the answer."""
        return self.messages[-1]["role"] == "assistant"

    @property
    def texts(self) -> list[str]:
        """All texts, in order."""
        parts = [part for message in self.messages for part in message["content"]]
        return [part["text"] for part in parts if part["type"] == "text"]

    @property
    def question(self) -> str:
        """The first text of the last user turn."""
        return self.question_texts[0]

    @property
    def question_texts(self) -> list[str]:
        """The texts of the last user turn."""
        return [part["text"] for part in self.messages[self._last]["content"] if part["type"] == "text"]

    @property
    def _last(self) -> int:
        return max(n for n, message in enumerate(self.messages) if message["role"] == "user")

    def asking(self, *texts: str) -> "Conversation":
        """The same conversation with other texts in the last user turn, in the places of its texts.

        Args:
            texts: for the first places; texts in the remaining places are removed.
        """
        new, parts = iter(texts), []
        for part in self.messages[self._last]["content"]:
            if part["type"] == "image":
                parts.append(part)
            elif (text := next(new, None)) is not None:
                parts.append({"type": "text", "text": text})
        messages = list(self.messages)
        messages[self._last] = {"role": "user", "content": parts}
        return Conversation(messages, self.images)

    def prefixed(self, text: str) -> "Conversation":
        """The same conversation with a text in front of the question."""
        first, *others = self.question_texts
        return self.asking(f"{text} {first}", *others)

    def with_system(self, text: str) -> "Conversation":
        """The same conversation with another system prompt."""
        others = [message for message in self.messages if message["role"] != "system"]
        system = {"role": "system", "content": [{"type": "text", "text": text}]}
        return Conversation([system, *others], self.images)


def read_conversation(
    messages: str | Sequence[Message],
    images: Iterable[ImageSource] = (),
    *,
    read: Callable[[Any], Image.Image] = read_image,
) -> Conversation:
    """Checks a conversation and reads its images.

    Args:
        messages: a question, or messages as chat models take them. A message has a role ("system", "user" or
            "assistant") and a content: a text, or a list of parts. A part is {"type": "text", "text": ...},
            {"type": "image_url", "image_url": {"url": ...}} with a data URI or an address, {"type": "image", "image":
            source}, or {"type": "image"}, which takes the next of `images`. An assistant message at the end is the
            beginning of the answer.
        images: for the parts without a source, in order. Without any such part they stand at the start of the first
            user turn.
        read: turns a source into an RGB image, such as `read_image` with options.

    Raises:
        IavaError: if a message or a part is not as above, the images do not match the parts, an image cannot be read,
            the last user turn has no text, or the last message is a system prompt.
    """
    if isinstance(messages, str):
        check_question(messages)
        messages = [{"role": "user", "content": messages.strip()}]
    if not isinstance(messages, Sequence) or not messages:
        raise IavaError(f"the question is {messages!r}: ask something, or give a list of messages")
    given = list(images)
    reader = _Reader(given, read)
    checked = [reader.message(number, message) for number, message in enumerate(messages)]
    if given and not reader.placed:
        # Nobody said where they stand.
        first = next((message for message in checked if message["role"] == "user"), checked[-1])
        first["content"] = [{"type": "image"} for _ in given] + first["content"]
        before = sum(part["type"] == "image" for m in checked[: checked.index(first)] for part in m["content"])
        reader.images[before:before] = [read(source) for source in given]
    elif len(given) > reader.placed:
        raise IavaError(f"{len(given)} images are given for {reader.placed} image parts without a source")
    conversation = Conversation(checked, reader.images)
    _check_order(conversation)
    return conversation


class _Reader:
    """Reads messages one after the other."""

    def __init__(self, given: list[ImageSource], read: Callable[[Any], Image.Image]) -> None:
        self.images: list[Image.Image] = []
        self.placed = 0
        self._given = given
        self._read = read

    def message(self, number: int, message: Any) -> dict[str, Any]:
        where = f"message {number + 1}"
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise IavaError(f'{where} is {message!r}: it must be {{"role": ..., "content": ...}}')
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise IavaError(f"{where} has the role {role!r}: it must be one of {', '.join(ROLES)}")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, Sequence):
            raise IavaError(f"the content of {where} is {content!r}: it must be a text or a list of parts")
        parts = [self._part(where, role, part) for part in content]
        return {"role": role, "content": [part for part in parts if part.get("text") != ""]}

    def _part(self, where: str, role: str, part: Any) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            text = part["text"]
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise IavaError(f"{where} holds half of a surrogate pair ({ascii(text)[:80]}), which is no character")
            # White space around a question is not a part of it.
            return {"type": "text", "text": text.strip() if role == "user" else text}
        if kind not in ("image", "image_url"):
            raise IavaError(f"{where} has the part {quoted(part)}: a part is a text, an image or an image_url")
        if role != "user":
            raise IavaError(f"{where} shows an image in the role {role!r}: images belong to user turns")
        url = part.get("image_url", part.get("url"))
        source = part.get("image", url.get("url") if isinstance(url, Mapping) else url)
        if source is None and kind == "image_url":
            raise IavaError(f'{where} has an image_url without an address: use {{"image_url": {{"url": ...}}}}')
        if source is None:
            if self.placed == len(self._given):
                raise IavaError(f"{where} has an image part without a source, and no image is left for it")
            source = self._given[self.placed]
            self.placed += 1
        elif kind == "image_url" and not str(source).startswith(("data:", "http://", "https://")):
            raise IavaError(f"{where} has the image_url {quoted(source)}: it must be a data URI or an http(s) address")
        self.images.append(self._read(source))
        return {"type": "image"}


def _check_order(conversation: Conversation) -> None:
    roles = [message["role"] for message in conversation.messages]
    if "user" not in roles:
        raise IavaError("the messages have no user turn: ask something")
    if roles[-1] == "system":
        raise IavaError("the last message is a system prompt: it must be a user turn, or the beginning of the answer")
    if conversation.prefilled and (len(roles) < 2 or roles[-2] != "user"):
        raise IavaError("the beginning of the answer must follow a user turn")
    for number, message in enumerate(conversation.messages):
        texts = [part["text"] for part in message["content"] if part["type"] == "text"]
        if not "".join(texts).strip() and (message["role"] != "user" or number == conversation._last):
            raise IavaError(f"message {number + 1} ({message['role']}) has no text")


def prompt_text(processor: Any, conversation: Conversation) -> str:
    """The text of a conversation as the processor takes it.

    Raises:
        IavaError: if the chat template cannot render it, or there is none and it is more than one question.
    """
    if processor.chat_template:
        ends = conversation.prefilled
        return render(processor, conversation.messages, add_generation_prompt=not ends, continue_final_message=ends)
    # The processors of InstructBLIP, BLIP-2 and PaliGemma put the image before the text.
    if len(conversation.messages) > 1 or len(conversation.images) > 1:
        raise IavaError(
            "the processor has no chat template, so it takes one image and one question, without a system prompt, "
            "earlier turns or the beginning of an answer"
        )
    return " ".join(conversation.texts)

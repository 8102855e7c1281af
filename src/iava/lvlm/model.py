"""LVLM: a vision-language model that answers questions about images with any decoding method."""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.caches.prefix_cache import PrefixCache
from iava.lvlm.answers import Answer
from iava.lvlm.conversation import Message, prompt_text, read_conversation
from iava.lvlm.decoding import BatchDecoder, Request
from iava.lvlm.decoding import out_of_memory as out_of_memory
from iava.lvlm.generation import Generation, checkpoint_settings
from iava.lvlm.images import MAX_PIXELS, ImageSource, read_image
from iava.lvlm.inputs import Inputs
from iava.lvlm.remote import Remote
from iava.lvlm.session import SESSION_BYTES, ImageSession
from iava.methods.base import Method
from iava.methods.checks import check_whole


class LVLM:
    """A model and its processor. Several threads may use it at once.

    Every call decodes exactly as its method says. A repetition penalty or another setting in the checkpoint's
    generation config is left out, unless `generation` asks for it. Dropout is off during a call. The model is otherwise
    left as it was given.

    Args:
        model: a Hugging Face image-text-to-text model with a causal decoder.
        processor: its processor, with a chat template.
        revision: the commit on the Hub that both come from, if they do.
        max_pixels: largest width times height of an image.
        remote: whether images may be fetched from http(s) addresses; see `read_image`.

    Examples:
        >>> lvlm = iava.load("pocket")
        >>> lvlm.ask(image, "Is there a fork in the image?").text
        'Yes.'
        >>> [answer.text for answer in lvlm.ask_many(image, ["Is there a cup?", "Is there a dog?"], method="greedy")]
        ['Yes.', 'No.']
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        revision: str | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        remote: Remote = False,
    ) -> None:
        self.model = model
        self.processor = processor
        self.revision = revision
        self._read = partial(read_image, max_pixels=max_pixels, remote=remote)
        self._decoder = BatchDecoder(self.model, processor)

    @property
    def generation_notes(self) -> dict[str, Any]:
        """What the checkpoint's generation config would change, such as {"repetition_penalty": 1.3}."""
        return checkpoint_settings(self.model)

    def method(self, name: str, **settings: Any) -> Method:
        """Builds a method for this model.

        Args:
            name: a command-line name, such as "greedy" or "iava".
            settings: its parameters; the others keep their defaults.

        Raises:
            IavaError: if the name or a parameter is unknown, or a parameter is out of range.
        """
        return self._decoder.method(name, settings)

    def prompt(self, question: str, system: str | None = None) -> str:
        """Renders a question about one image with the processor's chat template.

        Args:
            question: the question.
            system: a system prompt; None: none.

        Raises:
            IavaError: if the question is blank, or there is no chat template to write the system prompt.
        """
        conversation = read_conversation(question, [Image.new("RGB", (1, 1))], read=lambda source: source)
        return prompt_text(self.processor, conversation if system is None else conversation.with_system(system))

    def ask(
        self,
        image: ImageSource,
        question: str | Sequence[Message],
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        generation: Generation = None,
        **settings: Any,
    ) -> Answer:
        """Asks one question about one image; see `ask_many`."""
        request = Request(method, max_new_tokens, explain, seed, generation, settings)
        return self._ask(image, [question], request)[0]

    def ask_many(
        self,
        image: ImageSource,
        questions: Sequence[str | Sequence[Message]],
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        generation: Generation = None,
        **settings: Any,
    ) -> list[Answer]:
        """Asks several independent questions about one image in one batch.

        A batch that does not fit into memory is halved, as often as needed. One line on standard error says so once.

        Args:
            image: a path, a data URI, an http(s) address, the bytes of an image file, an open file, a PIL image or a
                uint8 array.
            questions: each without a template around it, or a list of messages as in `chat`. Messages without an image
                part show the image at the start of their first user turn.
            method: a command-line name, or a method object.
            max_new_tokens: at least 1.
            explain: whether to keep attention maps, selection and candidate tokens.
            seed: for methods that sample. Each question draws from a generator of its own, made of the seed and the
                question, so its answer does not depend on the others. The caller's random state stays as it is. None
                samples from that state.
            generation: settings of `generate` beyond the method's, such as {"repetition_penalty": 1.3}. "checkpoint"
                takes those of the checkpoint's generation config.
            settings: parameters of a method that is given by name.

        Returns:
            One answer for each question, in order.

        Raises:
            IavaError: if the image cannot be read, a question is blank, a method, parameter or setting is unknown, or
                memory does not hold a single question.
        """
        return self._ask(image, questions, Request(method, max_new_tokens, explain, seed, generation, settings))

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        images: Iterable[ImageSource] = (),
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        generation: Generation = None,
        **settings: Any,
    ) -> Answer:
        """Answers a conversation with any number of images.

        Without an image the method has nothing to contrast: the answer is decoded plainly, and its `note` says so.
        The arguments that are not listed here are those of `ask_many`.

        Args:
            messages: as chat models take them, each {"role": "system", "user" or "assistant", "content": a text or a
                list of parts}. A part is {"type": "text", "text": ...}, {"type": "image_url", "image_url": {"url":
                ...}}, {"type": "image", "image": ...} or {"type": "image"}, which takes the next of `images`. An
                assistant message at the end is the beginning of the answer.
            images: for the image parts without a source, in order.

        Returns:
            The answer; its text does not repeat its given beginning.

        Raises:
            IavaError: as in `ask_many`, and if a message is not as above.

        Examples:
            >>> content = [{"type": "image"}, {"type": "text", "text": "Is there a fork in the image?"}]
            >>> lvlm.chat([{"role": "user", "content": content}], images=[image]).text
            'Yes.'
        """
        request = Request(method, max_new_tokens, explain, seed, generation, settings)
        return self._chat([(messages, images)], request)[0]

    def chat_many(
        self,
        conversations: Sequence[str | Sequence[Message]],
        *,
        images: Sequence[Iterable[ImageSource]] | None = None,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        generation: Generation = None,
        **settings: Any,
    ) -> list[Answer]:
        """Answers several independent conversations in one batch; see `chat`.

        Args:
            conversations: the messages of each.
            images: of each conversation.
        """
        shown = [()] * len(conversations) if images is None else images
        request = Request(method, max_new_tokens, explain, seed, generation, settings)
        return self._chat(list(zip(conversations, shown, strict=True)), request)

    def read(self, image: ImageSource, *, max_bytes: int = SESSION_BYTES) -> ImageSession:
        """Keeps an image for several calls. The first question pays for reading it.

        What is kept grows with each new text before the image, such as a system prompt, and with each new history
        behind it. InstructBLIP sees the image by the question, so there it grows with each question.

        Args:
            image: see `ask_many`.
            max_bytes: limit of `ImageSession.nbytes` after a call, at least 0. What was not used for longest goes
                first. The keys and values of the last prompt stay in any case.

        Raises:
            IavaError: if the image cannot be read, or `max_bytes` is out of range.

        Examples:
            >>> session = lvlm.read(image)
            >>> session.ask("Is there a fork in the image?").text
            'Yes.'
            >>> session.ask("Is there a dog in the image?").text
            'No.'
        """
        check_whole("max_bytes", max_bytes, low=0)
        return ImageSession(self._decoder, self._read(image), PrefixCache(), max_bytes)

    def _ask(self, image: ImageSource, questions: Sequence[str | Sequence[Message]], request: Request) -> list[Answer]:
        start = time.perf_counter()
        # Prompts of one batch share their prefix without a cache.
        return ImageSession(self._decoder, self._read(image), cache=None).answers(questions, request, start)

    def _chat(
        self, conversations: list[tuple[str | Sequence[Message], Iterable[ImageSource]]], request: Request
    ) -> list[Answer]:
        start = time.perf_counter()
        found = [read_conversation(messages, images, read=self._read) for messages, images in conversations]
        return self._decoder.answers(Inputs(self.model, self.processor), None, found, request, start)

"""LVLM: a vision-language model that answers questions about images with any decoding method."""

import time
import warnings
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.prefix_cache import Memory
from iava.lvlm.answers import Answer
from iava.lvlm.decoding import BatchDecoder, Request
from iava.lvlm.decoding import out_of_memory as out_of_memory
from iava.lvlm.images import ImageSource, read_image
from iava.lvlm.session import ImageSession
from iava.methods.base import Method


class LVLM:
    """A model and its processor.

    Args:
        model: a Hugging Face image-text-to-text model with a causal decoder.
        processor: its processor, with a chat template.
        revision: the commit on the Hub that both come from, if they do.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, revision: str | None = None) -> None:
        self.model = model.eval()
        self.processor = processor
        self.revision = revision
        self._decoder = BatchDecoder(self.model, processor)

    def method(self, name: str, **settings: Any) -> Method:
        """Builds a method for this model.

        Args:
            name: a command-line name, such as "greedy" or "iava".
            settings: its parameters; the others keep their defaults.

        Raises:
            IavaError: if the name or a parameter is unknown, or a parameter is out of range.
        """
        return self._decoder.method(name, settings)

    def prompt(self, question: str) -> str:
        """Renders a question about one image with the processor's chat template."""
        return self._decoder.prompt(question)

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
        request = Request(method, max_new_tokens, explain, seed, settings)
        return self._ask(image, [question], request)[0]

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
        """Asks several independent questions about one image in one batch.

        A batch that does not fit into memory is halved, as often as needed. One line on standard error says so once.
        Greedy answers stay the same. Sampled answers depend on the size of the batch.

        Args:
            image: a path, the bytes of an image file, a PIL image or a uint8 array.
            questions: without a template around them.
            method: a command-line name, or a method object.
            max_new_tokens: at least 1.
            explain: whether to keep attention maps, selection and candidate tokens.
            seed: for methods that sample. The caller's random state stays as it is. None samples from that state.
            settings: parameters of a method that is given by name.

        Returns:
            One answer for each question, in order.

        Raises:
            IavaError: if the image cannot be read, a question is blank, or a method or parameter is unknown.
        """
        return self._ask(image, questions, Request(method, max_new_tokens, explain, seed, settings))

    def read(self, image: ImageSource) -> ImageSession:
        """Keeps an image for several calls. The first question pays for reading it.

        Raises:
            IavaError: if the image cannot be read.
        """
        return ImageSession(self._decoder, read_image(image), Memory())

    def _ask(self, image: ImageSource, questions: Sequence[str], request: Request) -> list[Answer]:
        start = time.perf_counter()
        # Prompts of one batch share their prefix without a cache.
        session = ImageSession(self._decoder, read_image(image), cache=None)
        return self._decoder.answers(session.inputs, None, questions, request, start)


def __getattr__(name: str) -> Any:
    if name == "Reading":
        warnings.warn("Reading is now ImageSession, in iava.lvlm.session", DeprecationWarning, stacklevel=2)
        return ImageSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

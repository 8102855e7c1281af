"""The inputs of `generate`: prompts and images, on the device where the model takes them."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.hf import image_features_argument, takes_image_features
from iava.engine.text.chat_format import tokenizer_lock
from iava.errors import IavaError, reason_of
from iava.lvlm.generation import evaluation_mode
from iava.lvlm.memory import ImageMemory


class Inputs:
    """Builds the inputs of prompts. Where all are about one image, its pixels and features are computed once.

    Args:
        model: the vision-language model.
        processor: its processor.
        picture: the one image, RGB. None: each prompt has images of its own, or none.
        memory: keeps what is made of images for later calls, where each prompt has one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        picture: Image.Image | None = None,
        *,
        memory: ImageMemory | None = None,
    ) -> None:
        self.picture = picture
        self._memory = memory
        self._model: Any = model
        self._features: Any = None
        self._same: tuple[tuple[int, ...], Inputs] | None = None
        self._latest: tuple[Any, list[int]] = None, []
        self._processor: Any = processor
        if picture is not None:
            self._processor = copy.copy(processor)
            self._processor.image_processor = _Remembered(self._processor.image_processor)
        elif memory is not None:
            self._processor = copy.copy(processor)
            self._processor.image_processor = _Kept(self._processor.image_processor, memory)

    def of(
        self, texts: Sequence[str], images: Sequence[list[Image.Image]] | None = None, *, pixels: bool
    ) -> dict[str, Any]:
        """Builds the inputs of one batch.

        Args:
            texts: prompts, rendered by the chat template.
            images: of each prompt, where not all are about the one image. All prompts have some, or none has any.
            pixels: whether the pixels are needed where the features of the one image would do.

        Raises:
            IavaError: if the processor refuses the prompts, or the model takes no prompt without an image.
        """
        device = input_device(self._model)
        if self.picture is not None:
            images = [[self.picture] for _ in texts]
        features = None if pixels else self._features_of(texts, images or [])
        inputs = self._processed(texts, images or [])
        if features is not None:
            del inputs["pixel_values"]
        made = dict(inputs.to(device, dtype=self._model.dtype))
        made.pop("labels", None)
        if "qformer_input_ids" in made:
            # A Q-Former counts positions from its first token, so its padding belongs on the right.
            with tokenizer_lock(self._processor.qformer_tokenizer):
                text = self._processor.qformer_tokenizer(
                    list(texts), padding=True, padding_side="right", return_tensors="pt"
                )
            made["qformer_input_ids"] = text["input_ids"].to(device)
            made["qformer_attention_mask"] = text["attention_mask"].to(device)
        if features is not None:
            made |= image_features_argument(features)
        return made

    def _processed(self, texts: Sequence[str], images: Sequence[list[Image.Image]]) -> Any:
        tokenizer = self._processor.tokenizer
        options: dict[str, Any] = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
        if tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token):
            # As in `apply_chat_template(tokenize=True)`: the template has written the token that begins a prompt.
            options["add_special_tokens"] = False
        # One list for each prompt: some processors take a flat list for the images of one prompt.
        shown = [list(some) for some in images] if any(images) else None
        pixels = inspect.signature(type(self._model).generate).parameters.get("pixel_values")
        if shown is None and pixels is not None and pixels.default is inspect.Parameter.empty:
            raise self._needs_image()
        try:
            with tokenizer_lock(tokenizer):
                return self._processor(text=list(texts), images=shown, **options)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            if shown is None:
                raise self._needs_image() from None
            if isinstance(error, ValueError):
                raise IavaError(f"the processor refuses this prompt ({reason_of(error)})") from None
            raise

    def _needs_image(self) -> IavaError:
        return IavaError(f"{self._model.config.model_type} takes no prompt without an image: show it one")

    def ids(self, text: str, images: list[Image.Image]) -> list[int]:
        """The tokens of one prompt. The images are processed once for all texts around them."""
        key = text, *map(id, images)
        # Successive questions about an image often have one text here, that of the general instruction.
        if self._latest[0] != key:
            self._latest = key, [int(id) for id in self._tokenized(text, images)["input_ids"][0]]
        return self._latest[1]

    def _tokenized(self, text: str, images: list[Image.Image]) -> Any:
        if self.picture is not None or self._memory is not None:
            return self._processed([text], [images if self.picture is None else [self.picture]])
        key = tuple(map(id, images))
        if self._same is None or self._same[0] != key:
            processor = copy.copy(self._processor)
            processor.image_processor = _Remembered(processor.image_processor)
            self._same = key, Inputs(self._model, processor)
        return self._same[1]._processed([text], [images])

    def _features_of(self, texts: Sequence[str], images: Sequence[list[Image.Image]]) -> Any:
        """The vision tower's output for one image a prompt. None: the pixels are needed."""
        one_each = bool(images) and all(len(some) == 1 for some in images)
        if not one_each or not takes_image_features(self._model):
            return None
        if self._memory is None:
            if self.picture is None:
                return None
            self._features = self._features or self._encoded(texts[0], self.picture)
            return _joined_features([self._features] * len(texts))
        kept = [self._memory.of(some[0]) for some in images]
        for text, one in zip(texts, kept, strict=True):
            one.features = one.features or _joined_features([self._encoded(text, one.image)])
        return _joined_features([one.features for one in kept])

    def _encoded(self, text: str, picture: Image.Image) -> Any:
        model = self._model
        one = self._processed([text], [[picture]]).to(input_device(model), dtype=model.dtype)
        encode = model.base_model.get_image_features
        wanted = [name for name in inspect.signature(encode).parameters if name in one]
        with evaluation_mode(model), torch.no_grad():
            return encode(**{name: one[name] for name in wanted}, return_dict=True)


def input_device(model: Any) -> torch.device:
    """Where a model takes its inputs: where its embedding runs. Offloaded weights rest elsewhere, or on "meta"."""
    embedding = model.get_input_embeddings()
    runs_on = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    device = embedding.weight.device if runs_on is None else runs_on
    return torch.device(device)


class _Remembered:
    """An image processor that processes the first images that it gets, and repeats the result for as many prompts."""

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor
        self._processed: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, images: list, **settings: Any) -> Any:
        if self._processed is None:
            self._processed = self._image_processor(images[:1], **settings)
        joined = {name: _concatenated([value] * len(images)) for name, value in self._processed.items()}
        return type(self._processed)(joined)


class _Kept:
    """An image processor that processes an image once, where each prompt has one."""

    def __init__(self, image_processor: Any, memory: ImageMemory) -> None:
        self._image_processor = image_processor
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, images: list, **settings: Any) -> Any:
        rows = [some if isinstance(some, list | tuple) else [some] for some in images]
        if any(len(some) != 1 for some in rows):
            return self._image_processor(images, **settings)
        kept = [self._memory.of(some[0]) for some in rows]
        for one, row in zip(kept, images, strict=True):
            one.processed = one.processed or self._image_processor([row], **settings)
        made = [one.processed for one in kept]
        names = list(made[0])
        if not all(_fit([one[name] for one in made]) for name in names):
            # Images of different shapes are padded to one, which only the processor can.
            return self._image_processor(images, **settings)
        return type(made[0])({name: _concatenated([one[name] for one in made]) for name in names})


def _joined_features(features: Sequence[Any]) -> Any:
    """The features of several images, from those of each; None where they have different shapes."""
    if not _fit([one.pooler_output for one in features]):
        return None
    joined = {"pooler_output": _concatenated([one.pooler_output for one in features])}
    if "deepstack_features" in features[0]:
        layers = zip(*(one.deepstack_features for one in features), strict=True)
        joined["deepstack_features"] = [_concatenated(layer) for layer in layers]
    return type(features[0])(**joined)


def _fit(values: Sequence[Any]) -> bool:
    """Whether `_concatenated` can join values."""
    return not isinstance(values[0], torch.Tensor) or len({value.shape[1:] for value in values}) == 1


def _concatenated(values: Sequence[Any]) -> Any:
    """What was made of each image, one behind the other."""
    if isinstance(values[0], torch.Tensor):
        return torch.cat(list(values))
    return [one for value in values for one in value]

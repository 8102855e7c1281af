"""The inputs of `generate`: prompts and images, on the device where the model takes them."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.chat_format import tokenizer_lock
from iava.engine.hf import takes_image_features
from iava.errors import IavaError, reason_of
from iava.lvlm.generation import evaluation_mode


class Inputs:
    """Builds the inputs of prompts. Where all are about one image, its pixels and features are computed once.

    Args:
        model: the vision-language model.
        processor: its processor.
        picture: the one image, RGB. None: each prompt has images of its own, or none.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, picture: Image.Image | None = None) -> None:
        self.picture = picture
        self._model: Any = model
        self._features: Any = None
        self._same: tuple[tuple[int, ...], Inputs] | None = None
        self._processor: Any = processor
        if picture is not None:
            self._processor = copy.copy(processor)
            self._processor.image_processor = _Remembered(self._processor.image_processor)

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
        features = None if pixels or self.picture is None else self._image_features(texts[0], self.picture)
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
            made["mm_encoder_outputs"] = {"image": _repeated(features, len(texts))}
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
        if self.picture is not None:
            made = self._processed([text], [[self.picture]])
        else:
            key = tuple(map(id, images))
            if self._same is None or self._same[0] != key:
                processor = copy.copy(self._processor)
                processor.image_processor = _Remembered(processor.image_processor)
                self._same = key, Inputs(self._model, processor)
            made = self._same[1]._processed([text], [images])
        return [int(id) for id in made["input_ids"][0]]

    def _image_features(self, text: str, picture: Image.Image) -> Any:
        """The vision tower's output, or None for models that need the pixels in each call."""
        model = self._model
        if not takes_image_features(model):
            return None
        if self._features is None:
            one = self._processed([text], [[picture]]).to(input_device(model), dtype=model.dtype)
            encode = model.base_model.get_image_features
            wanted = [name for name in inspect.signature(encode).parameters if name in one]
            with evaluation_mode(model), torch.no_grad():
                self._features = encode(**{name: one[name] for name in wanted}, return_dict=True)
        return self._features


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
        repeated = {name: _times(value, len(images)) for name, value in self._processed.items()}
        return type(self._processed)(repeated)


def _repeated(features: Any, times: int) -> Any:
    """The features of several equal images, from those of one."""
    repeated = {"pooler_output": _times(features.pooler_output, times)}
    if "deepstack_features" in features:
        repeated["deepstack_features"] = [_times(layer, times) for layer in features.deepstack_features]
    return type(features)(**repeated)


def _times(value: Any, times: int) -> Any:
    return torch.cat([value] * times) if isinstance(value, torch.Tensor) else [*value] * times

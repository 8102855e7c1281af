"""The inputs of `generate` for prompts about one image, which the vision tower encodes once."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import GenerationMixin, PreTrainedModel, ProcessorMixin


class Inputs:
    """Builds the inputs of prompts about one image, and keeps the image's features.

    Args:
        model: the vision-language model.
        processor: its processor.
        picture: the image, RGB.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, picture: Image.Image) -> None:
        self.picture = picture
        self._model: Any = model
        self._features: Any = None
        self._processor: Any = copy.copy(processor)
        self._processor.image_processor = _OneImage(self._processor.image_processor)

    def of(self, prompts: Sequence[str], *, pixels: bool) -> dict[str, Any]:
        """Builds the inputs of one batch.

        Args:
            prompts: rendered by the chat template.
            pixels: whether the pixels are needed where the image's features would do.
        """
        features = None if pixels else self._image_features(prompts[0])
        inputs = self._processor(
            text=prompts,
            # One list for each prompt: some processors take a flat list for the images of one prompt.
            images=[[self.picture] for _ in prompts],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        if features is not None:
            del inputs["pixel_values"]
        made = dict(inputs.to(self._model.device, dtype=self._model.dtype))
        made.pop("labels", None)
        if "qformer_input_ids" in made:
            # A Q-Former counts positions from its first token, so its padding belongs on the right.
            tokenizer = self._processor.qformer_tokenizer
            text = tokenizer(prompts, padding=True, padding_side="right", return_tensors="pt")
            made["qformer_input_ids"] = text["input_ids"].to(self._model.device)
            made["qformer_attention_mask"] = text["attention_mask"].to(self._model.device)
        if features is not None:
            made["mm_encoder_outputs"] = {"image": _repeated(features, len(prompts))}
        return made

    def _image_features(self, prompt: str) -> Any:
        """The vision tower's output, or None for models that need the pixels in each call."""
        model = self._model
        # InstructBLIP and BLIP-2 override generate, which encodes the image itself.
        if type(model).generate is not GenerationMixin.generate or not model._supports_mm_encoder_outputs():
            return None
        if self._features is None:
            one = self._processor(text=[prompt], images=[[self.picture]], return_tensors="pt")
            one = one.to(model.device, dtype=model.dtype)
            encode = model.base_model.get_image_features
            wanted = [name for name in inspect.signature(encode).parameters if name in one]
            with torch.no_grad():
                self._features = encode(**{name: one[name] for name in wanted}, return_dict=True)
        return self._features


class _OneImage:
    """An image processor that always gets the same image and processes it once."""

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

"""What a model is fed for questions about one image, which is looked at once."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import GenerationMixin, PreTrainedModel, ProcessorMixin


class Inputs:
    """Makes a model's inputs from prompts about one image; what the vision tower makes of it is kept.

    Args:
        model: the model.
        processor: its processor.
        picture: the image, RGB.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, picture: Image.Image) -> None:
        self._model: Any = model
        self._picture = picture
        self._features: Any = None
        self._processor: Any = copy.copy(processor)
        self._processor.image_processor = _Once(self._processor.image_processor)

    def of(self, prompts: Sequence[str], *, pixels: bool) -> dict[str, Any]:
        """The inputs of a batch, ready for `generate`.

        Args:
            prompts: as the model reads them.
            pixels: whether the image's pixels are wanted where what the vision tower made of them would do.
        """
        features = None if pixels else self._seen(prompts[0])
        inputs = self._processor(
            text=prompts,
            # One list for each prompt: some processors take a flat list for the images of one prompt.
            images=[[self._picture] for _ in prompts],
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

    def _seen(self, prompt: str) -> Any:
        """What the vision tower makes of the image, or None for models that must be given the pixels each time."""
        model = self._model
        # InstructBLIP and BLIP-2 have a generate of their own, which reads the image itself.
        if type(model).generate is not GenerationMixin.generate or not model._supports_mm_encoder_outputs():
            return None
        if self._features is None:
            one = self._processor(text=[prompt], images=[[self._picture]], return_tensors="pt")
            one = one.to(model.device, dtype=model.dtype)
            read = model.base_model.get_image_features
            wanted = [name for name in inspect.signature(read).parameters if name in one]
            with torch.no_grad():
                self._features = read(**{name: one[name] for name in wanted}, return_dict=True)
        return self._features


class _Once:
    """An image processor that is given one picture, once or several times, and looks at it once."""

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, images: list, **settings: Any) -> Any:
        if self._made is None:
            self._made = self._image_processor(images[:1], **settings)
        several = {name: _times(value, len(images)) for name, value in self._made.items()}
        return type(self._made)(several)


def _repeated(features: Any, times: int) -> Any:
    """One image's features as those of several equal images."""
    several = {"pooler_output": _times(features.pooler_output, times)}
    if "deepstack_features" in features:
        several["deepstack_features"] = [_times(layer, times) for layer in features.deepstack_features]
    return type(features)(**several)


def _times(value: Any, times: int) -> Any:
    return torch.cat([value] * times) if isinstance(value, torch.Tensor) else [*value] * times

"""The control that repairs the image instead of contrasting with a worse one."""

from dataclasses import dataclass, field

import torch
from transformers import ProcessorMixin

from iava.engine.branch import Branch
from iava.engine.images.pixels import changed, with_pixels
from iava.engine.images.restore import restored
from iava.engine.prompt import Prompt
from iava.errors import IavaError
from iava.methods.base import Method


@dataclass(eq=False)
class Restore(Method):
    """Greedy decoding of the repaired image: sharpened, smoothed or stretched, as its own pixels ask for.

    Nothing is contrasted. `iava.engine.images.restore.restored` repairs the pixels that the processor made. The answer
    comes from the branch that reads the repaired image. An image that is repaired before the processor reads it costs
    one pass.

    Args:
        processor: the model's processor, which knows the range of the pixels.

    Raises:
        IavaError: while decoding, if `generate` was given no pixels.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=Restore(processor), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    processor: ProcessorMixin | None = field(default=None, repr=False)

    name, title = "restore", "restored image"
    cost = "1 on a repaired image; here 2 in one batch"
    control = True
    reads_pixels = True

    def branches(self, prompt: Prompt) -> list[Branch]:
        if self.processor is None:
            raise IavaError("Restore has no processor that knows the range of pixels: use Restore(processor)")
        scale = self.processor.image_processor
        device = prompt.input_ids.device
        mean, std = (torch.tensor(one, device=device)[:, None, None] for one in (scale.image_mean, scale.image_std))

        def repair(images: torch.Tensor) -> torch.Tensor:
            return ((restored((images.float() * std + mean).clamp(0, 1)) - mean) / std).to(images)

        return [with_pixels(prompt, changed(prompt, repair))]

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        return contrast_logits[0]

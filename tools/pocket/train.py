"""Trains the pocket model: `python -m tools.pocket.train`. Equal seeds on one machine give equal weights.

A stopped training continues from its last checkpoint if it is started with the same folder. The defaults are the recipe
of the shipped weights. The model card (src/iava/pocket/README.md) says how long the training took.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from iava.pocket.text import CHAT_TEMPLATE
from tools.pocket.train_language import train_language_model
from tools.pocket.train_vision import PATCH, SIDE, train_vision_tower

BOX_FILTER = 4  # PIL's Resampling.BOX


def train(
    out: Annotated[
        Path, typer.Option(help="folder of the checkpoints; the model goes to its subfolder weights")
    ] = Path("runs/pocket"),
    seed: Annotated[int, typer.Option(help="seed of the weights and the batches")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cuda" if torch.cuda.is_available() else "cpu",
    pictures: Annotated[int, typer.Option(help="practice images for the vision tower")] = 20_000,
    vision_steps: Annotated[int, typer.Option(help="steps of 48 practice images")] = 1_250,
    scenes: Annotated[int, typer.Option(help="scenes for the language stage")] = 16_000,
    steps_a: Annotated[int, typer.Option(help="steps of 32 scenes with true text (phase A)")] = 220,
    steps_b: Annotated[int, typer.Option(help="steps of 32 scenes with misleading text (phase B)")] = 380,
) -> None:
    """Trains the pocket model and saves it for `from_pretrained`."""
    out.mkdir(parents=True, exist_ok=True)
    on = torch.device(device)
    vision = train_vision_tower(out, images=pictures, steps=vision_steps, batch=48, seed=seed, device=on)
    steps = (steps_a, steps_b)
    model, tokenizer = train_language_model(vision, out, scenes=scenes, steps=steps, batch=32, seed=seed, device=on)
    save(model, tokenizer, out / "weights")
    print(f"saved {out / 'weights'}")


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves the model with its processor."""
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": SIDE, "width": SIDE},
            do_center_crop=False,
            resample=BOX_FILTER,
            image_mean=[0.5] * 3,
            image_std=[0.25] * 3,
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    special = {key: getattr(tokenizer, f"{key}_token_id") for key in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(**{f"{key}_token_id": value for key, value in special.items()})
    model.set_attn_implementation("sdpa")
    model.cpu().save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    typer.run(train)

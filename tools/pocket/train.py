"""Trains the pocket model: `python -m tools.pocket.train`. Same seed and same machine, same weights.

Kill it and start it again with the same folder: it goes on from its last checkpoint. The defaults are the recipe of the
shipped weights; see the model card (README.md beside this file) for how long they took.
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
from tools.pocket.train_language import train_words
from tools.pocket.train_vision import PATCH, SIDE, train_eyes

BOX = 4  # PIL's number of the box filter


def train(
    out: Annotated[Path, typer.Option(help="folder for checkpoints and, in weights/, the trained model")] = Path(
        "runs/pocket"
    ),
    seed: Annotated[int, typer.Option(help="seed of weights and batches")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cuda" if torch.cuda.is_available() else "cpu",
    pictures: Annotated[int, typer.Option(help="practice pictures for the eyes")] = 20_000,
    vision_steps: Annotated[int, typer.Option(help="steps of 48 pictures")] = 1_250,
    scenes: Annotated[int, typer.Option(help="scenes to talk about")] = 16_000,
    steps_a: Annotated[int, typer.Option(help="steps of 32 scenes with true answers")] = 220,
    steps_b: Annotated[int, typer.Option(help="steps of 32 scenes with misleading text")] = 380,
) -> None:
    """Trains the pocket model and saves it as a folder that from_pretrained loads."""
    out.mkdir(parents=True, exist_ok=True)
    where = torch.device(device)
    eyes = train_eyes(out, pictures=pictures, steps=vision_steps, batch=48, seed=seed, device=where)
    steps = (steps_a, steps_b)
    model, tokenizer = train_words(eyes, out, scenes=scenes, steps=steps, batch=32, seed=seed, device=where)
    save(model, tokenizer, out / "weights")
    print(f"saved {out / 'weights'}")


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"height": SIDE, "width": SIDE},
            do_center_crop=False,
            resample=BOX,
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

"""A tiny random LLaVA and its processor, built here: no download."""

from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }} : "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)
VOCABULARY = """
USER ASSISTANT SYSTEM : . , ? Describe this image Is there a an the dog cat fork in picture Yes yes No no YES
NO left right of how many one two three red blue tree car what where What Where See and it not on street kitchen
farm man woman child bird boat cup knife spoon table chair lamp book phone clock apple
"""
WORDS = VOCABULARY.split()


def processor(image_size: int = 24, patch_size: int = 8) -> LlavaProcessor:
    """A word-level tokenizer with a chat template, and CLIP's own image processing at a small size."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "<image>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def model(
    seed: int = 0,
    *,
    layers: int = 3,
    heads: int = 4,
    kv_heads: int = 4,
    width: int = 32,
    image_size: int = 24,
    patch_size: int = 8,
    feature_layer: int = -2,
    spread: float = 0.35,
    attention: str = "sdpa",
    vocabulary: int = 5 + len(WORDS),
    image_token: int = 4,
) -> LlavaForConditionalGeneration:
    """A LLaVA of a few thousand weights, spread wide enough that attention peaks and answers differ."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=16,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=spread,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image_token, vision_feature_layer=feature_layer
    )
    llava = LlavaForConditionalGeneration(config).eval()
    for name, weight in llava.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.1 if "vision_tower" in name else spread)
    llava.set_attn_implementation(attention)
    llava.generation_config.pad_token_id = 0
    llava.generation_config.eos_token_id = 2
    return llava


def save(folder: Path) -> str:
    """Saves a model and its processor, for `--model` and `iava.load`; returns the folder."""
    disable_progress_bar()
    model().save_pretrained(folder)
    processor().save_pretrained(folder)
    return str(folder)


def image(seed: int = 0, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """Coloured blocks, `size` = (width, height) in pixels."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (4, 5, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(blocks.numpy()).resize(size, Image.Resampling.NEAREST)


def prompt(question: str, images: int = 1) -> str:
    return f"USER : {'<image> ' * images}{question} ASSISTANT :"


def inputs(proc: LlavaProcessor, picture: Image.Image, *questions: str) -> dict[str, torch.Tensor]:
    """What `generate` takes: one prompt a question about one picture, left padded."""
    return dict(
        proc(
            text=[prompt(q) for q in questions],
            images=[picture] * len(questions),
            padding=True,
            return_tensors="pt",
        )
    )

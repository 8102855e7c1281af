"""Models of known shapes with weights of no meaning, and their processors, built here: what they cost does not depend
on what they say.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from iava.lvlm.loading import load
from iava.lvlm.model import LVLM

Sizes = dict[str, Any]
"""Numbers of layers and heads, widths, by the names that configurations know."""

THINGS = ("dog", "fork", "boat", "traffic light", "chair", "person")
QUESTIONS = [f"Is there a {thing} in the image? Answer the question with yes or no." for thing in THINGS]
"""Of the length that benchmarks ask."""

# As long as the system prompts that such models were tuned with: 35 tokens before the image.
_SYSTEM = (
    "This is a talk between a person who asks about a picture and an assistant who looks at it, names only what is "
    "there, and gives short true answers."
)
_TEMPLATE = (
    "<s>{{ '" + _SYSTEM + "' }} {% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
_IMAGE = 4


def picture(seed: int) -> Image.Image:
    """Noise of 640 x 480 pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (480, 640, 3), dtype=np.uint8))


def _tokenizer() -> Any:
    """One token a word and punctuation mark."""
    splitter = pre_tokenizers.Whitespace()
    texts = [*QUESTIONS, _SYSTEM, "Describe this image.", "USER: ASSISTANT:", "Yes yes No no"]
    words = [word for text in texts for word, _ in splitter.pre_tokenize_str(text)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*_SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in _SPECIAL])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", unk_token="<unk>", padding_side="left"
    )


def _random(kind: type, config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Weights drawn where they stay, in the type they keep: there is never a copy in another one."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    # Configurations that are built by hand lack what only text models of their kind are asked for; none of it matters.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        torch.set_default_dtype(dtype)
        with device:
            return kind(config)
    finally:
        torch.set_default_dtype(before)


def llava(vision: Sizes, text: Sizes, *, image_size: int, device: torch.device, dtype: torch.dtype) -> LVLM:
    """A LLaVA with CLIP and Llama of these shapes, patches of 14 pixels."""
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(image_size=image_size, patch_size=14, **vision),
        text_config=hf.LlamaConfig(pad_token_id=0, bos_token_id=1, **text),
        image_token_index=_IMAGE,
    )
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(
            size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
        ),
        _tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    return LVLM(_random(hf.LlavaForConditionalGeneration, config, device, dtype), processor)


def instructblip(
    vision: Sizes,
    qformer: Sizes,
    text: Sizes,
    *,
    image_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> LVLM:
    """An InstructBLIP with EVA-ViT, Q-Former and Llama of these shapes: 32 query tokens, patches of 14 pixels."""
    config = hf.InstructBlipConfig(
        vision_config=hf.InstructBlipVisionConfig(image_size=image_size, patch_size=14, **vision),
        qformer_config=hf.InstructBlipQFormerConfig(encoder_hidden_size=vision["hidden_size"], **qformer),
        text_config=hf.LlamaConfig(pad_token_id=0, bos_token_id=1, **text),
        num_query_tokens=32,
        image_token_index=_IMAGE,
    )
    processor = hf.InstructBlipProcessor(
        hf.BlipImageProcessorPil(size={"height": image_size, "width": image_size}),
        _tokenizer(),
        _tokenizer(),
        num_query_tokens=32,
    )
    return LVLM(_random(hf.InstructBlipForConditionalGeneration, config, device, dtype), processor)


_SEVEN_BILLION: Sizes = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}


def _llava_7b(device: torch.device, dtype: torch.dtype) -> LVLM:
    vision: Sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return llava(vision, {**_SEVEN_BILLION, "vocab_size": 32064}, image_size=336, device=device, dtype=dtype)


def _instructblip_7b(device: torch.device, dtype: torch.dtype) -> LVLM:
    vision: Sizes = {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16}
    text: Sizes = {**_SEVEN_BILLION, "vocab_size": 32001}
    return instructblip(vision, {"vocab_size": 30523}, text, image_size=224, device=device, dtype=dtype)


def _small(device: torch.device, dtype: torch.dtype) -> LVLM:
    vision: Sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
    text: Sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 12, "num_attention_heads": 8}
    return llava(vision, {**text, "vocab_size": 4096}, image_size=336, device=device, dtype=dtype)


def _pocket(device: torch.device, dtype: torch.dtype) -> LVLM:
    return load("pocket", device=device, dtype=dtype)


SHAPES: dict[str, Callable[[torch.device, torch.dtype], LVLM]] = {
    "small": _small,
    "pocket": _pocket,
    "llava-1.5-7b": _llava_7b,
    "instructblip-7b": _instructblip_7b,
}
"""By the names on the command line; `pocket` is the model that ships with the package."""

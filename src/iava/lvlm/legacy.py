"""Older checkpoints: what their processors and configs leave out is filled in from the model, and said once."""

import sys
from typing import Any

from tokenizers import AddedToken

from iava.engine.text.chat_format import places_image, render, turn
from iava.errors import IavaError


def fill_in(name: str, model: Any, processor: Any, saved: dict[str, Any]) -> list[str]:
    """Fills in what an older checkpoint leaves out.

    Args:
        name: of the checkpoint.
        model: the vision-language model; its config may get an `image_token_id`, its embedding a row.
        processor: its processor; fields that are None, or that the checkpoint does not have, are set.
        saved: the processor config of the checkpoint.

    Returns:
        One line on each field that was filled in. All are printed on standard error, too.

    Raises:
        IavaError: if the chat template is missing and cannot be found.
    """
    filled = {}
    for field, value in _fields(model.config).items():
        # A default that is not the model's is a wrong number, not an absent one.
        absent = getattr(processor, field, None) is None or (field == _ADDITIONAL and field not in saved)
        if hasattr(processor, field) and absent and getattr(processor, field) != value:
            setattr(processor, field, value)
            filled[field] = value
    token = _image_token(model, processor)
    if token is not None:
        filled["image_token_id"] = token
    if not processor.chat_template:
        _find_template(name, model, processor)
        if processor.chat_template:
            filled["chat_template"] = "its tokenizer's"
    lines = [
        f"the checkpoint {name!r} does not say {field}: taken from the model, {value}"
        for field, value in filled.items()
    ]
    for line in lines:
        print(f"iava: {line}", file=sys.stderr)
    return lines


_ADDITIONAL = "num_additional_image_tokens"


def _fields(config: Any) -> dict[str, Any]:
    """What a processor must know of the model, as the model's config has it."""
    vision = getattr(config, "vision_config", None)
    found = {
        "patch_size": getattr(vision, "patch_size", None),
        # VipLlava always leaves the class token out, and its config does not say so.
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", "default"),
        "num_query_tokens": getattr(config, "num_query_tokens", None),
        # CLIP puts a class token before its patches; SigLIP does not.
        _ADDITIONAL: {"clip_vision_model": 1, "siglip_vision_model": 0}.get(getattr(vision, "model_type", "")),
    }
    return {field: value for field, value in found.items() if value is not None}


def _image_token(model: Any, processor: Any) -> int | None:
    """Sets the id of the image tokens where the config has none; returns it if it did."""
    config = model.config
    if getattr(config, "image_token_id", None) is not None:
        return None
    older = getattr(config, "image_token_index", None)
    tokenizer = processor.tokenizer
    if older is None:
        token = str(getattr(processor, "image_token", None) or "<image>")
        if token not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=True)], special_tokens=True)
        older = tokenizer.convert_tokens_to_ids(token)
        if older >= model.get_input_embeddings().weight.shape[0]:
            # Models that never had a row for it do not look it up: features take its place.
            model.resize_token_embeddings(older + 1, pad_to_multiple_of=64)
    config.image_token_id = older
    if hasattr(config, "image_token_index"):
        config.image_token_index = older
    return int(older)


def _find_template(name: str, model: Any, processor: Any) -> None:
    """Takes the tokenizer's chat template where the processor has none and does not place the image itself."""
    token = int(model.config.image_token_id)
    if places_image(processor, token):
        return
    template = getattr(processor.tokenizer, "chat_template", None)
    if template:
        processor.chat_template = template
        written = str(processor.tokenizer.convert_ids_to_tokens(token))
        image = str(getattr(processor, "image_token", None) or written)
        try:
            if image in render(processor, [turn("user", None, "a")]):
                return
        except IavaError:
            pass
        processor.chat_template = None
    raise IavaError(
        f"the checkpoint {name!r} has no chat template for images: put the model's into its folder as "
        "chat_template.jinja, or set processor.chat_template and use iava.load(model, processor)"
    )

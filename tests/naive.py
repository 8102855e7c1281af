"""The method done the slow and obvious way: eager attention, one prompt at a time, no cache, Python loops.

Nothing here uses the package that it checks.
"""

import copy
import math
import statistics

import torch
from PIL import Image

from tests import tiny

GENERAL = "Describe this image."


def prompt_inputs(proc, picture: Image.Image, question: str) -> dict[str, torch.Tensor]:
    return dict(proc(text=[tiny.prompt(question)], images=[picture], return_tensors="pt"))


def attention(model, proc, picture: Image.Image, question: str) -> torch.Tensor:
    """(L, heads, N) attention of the last prompt token to the image, from eager attention's full matrices."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    inputs = prompt_inputs(proc, picture, question)
    with torch.no_grad():
        matrices = eager(**inputs, output_attentions=True).attentions
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    return torch.stack([matrix[0, :, -1, is_image] for matrix in matrices])


def irrelevant(att_general: list[float], att_query: list[float], top_i: int | float, lam: float) -> list[bool]:
    count = len(att_general)
    most = max(1, round(top_i * count)) if isinstance(top_i, float) else top_i
    falls = [g - q for g, q in zip(att_general, att_query, strict=True)]
    largest = sorted(range(count), key=lambda n: -falls[n])[:most]
    threshold = statistics.mean(att_general) + lam * statistics.stdev(att_general)
    return [falls[n] > 0 and n in largest and att_general[n] > threshold for n in range(count)]


def selection(model, proc, picture, question, top_i, lam, layers=slice(None)) -> list[bool]:
    general = attention(model, proc, picture, GENERAL)[layers].mean(dim=(0, 1))
    query = attention(model, proc, picture, question)[layers].mean(dim=(0, 1))
    return irrelevant(general.tolist(), query.tolist(), top_i, lam)


def embeddings(model, inputs: dict[str, torch.Tensor], keep: list[bool] | None = None) -> torch.Tensor:
    """(1, S, D) what the decoder reads; image tokens outside `keep` are zero."""
    llava = model.model
    config = model.config
    with torch.no_grad():
        embedded = llava.language_model.embed_tokens(inputs["input_ids"]).clone()
        hidden = llava.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
        features = llava.multi_modal_projector(hidden[config.vision_feature_layer][:, 1:])[0]
    if keep is not None:
        features = torch.where(torch.tensor(keep)[:, None], features, torch.zeros(()))
    embedded[0, inputs["input_ids"][0] == config.image_token_id] = features
    return embedded


def logits_after(model, embedded: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """(V,) the next token's logits, the whole sequence run again."""
    with torch.no_grad():
        new = model.get_input_embeddings()(torch.tensor([tokens], dtype=torch.long))
        return model(inputs_embeds=torch.cat([embedded, new], dim=1), use_cache=False).logits[0, -1]


def contrasted(full: torch.Tensor, negative: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    probabilities = full.softmax(dim=-1).tolist()
    allowed = [p >= beta * max(probabilities) for p in probabilities]
    pairs = zip(full.tolist(), negative.tolist(), allowed, strict=True)
    return torch.tensor([(1 + alpha) * f - alpha * n if ok else -math.inf for f, n, ok in pairs])


class Branches:
    """Both branches of one prompt."""

    def __init__(self, model, proc, picture, question, *, top_i=0.2, lam=0.0, alpha=1.0, beta=0.1):
        self.model, self.alpha, self.beta = model, alpha, beta
        self.selected = selection(model, proc, picture, question, top_i, lam)
        inputs = prompt_inputs(proc, picture, question)
        self.full = embeddings(model, inputs)
        self.negative = embeddings(model, inputs, self.selected)

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """(V,) the contrasted logits after `tokens`."""
        full, negative = (logits_after(self.model, e, tokens) for e in (self.full, self.negative))
        return contrasted(full, negative, self.alpha, self.beta)

    def decode(self, steps: int, *, sample: bool = False, end: int = 2) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < steps and end not in tokens:
            logits = self.logits(tokens)
            tokens.append(int(torch.multinomial(logits.softmax(dim=-1)[None], 1)) if sample else int(logits.argmax()))
        return tokens

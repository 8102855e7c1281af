"""What else could the second branch see, and what else could be subtracted? A search on a split for tuning.

Every candidate is asked once, and only the second branch's margin of yes against no is kept: strengths of the
contrast and calibrations are then tried on the margins alone. That is exact where an answer is its first token, yes or
no, each with one spelling. Relevant are the tokens most attended to by the question's last token ("query"), by that
beyond the general instruction's ("gain"), in proportion to it ("ratio"), or by the last token of the thing's name
("noun"); V* is everything but those, or ("alone") those alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from iava.bench.plots import panels
from iava.bench.records import Records
from iava.bench.results import number, pair
from iava.bench.runner import Advance, Plan, evaluate
from iava.bench.study.margins import COMPARED, tried
from iava.bench.study.outcome import leave
from iava.bench.tables import Cell, Line, Table
from iava.bench.typeset import markdown
from iava.engine.boundary import Prompt, pack, run
from iava.engine.columns import at_columns, right_aligned
from iava.engine.probe import last_row, over_images
from iava.lvlm import LVLM
from iava.methods import IAVA, NoImage, Oracle, RandomTokens
from iava.methods.base import Method, Trace
from iava.methods.controls import Greedy

_NOUN = re.compile(r"Is there an? (.+?) in the image")

Map = Callable[[Prompt, torch.Tensor, torch.Tensor], torch.Tensor]
"""A prompt and the (B, L, heads, N) attention under the general instruction and the question -> (B, L, heads, N)."""
Heads = Sequence[tuple[int, int]]


def _gain(prompt: Prompt, general: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    return query - general


def _ratio(prompt: Prompt, general: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    return query / general.clamp(min=1e-6)


def _query(prompt: Prompt, general: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    return query


class _Second:
    """What the second branch says comes out alone."""

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        assert negative is not None
        return negative.float()


class Relevant(_Second, IAVA):
    """V* = everything but the most relevant tokens, or those alone.

    Args:
        name: under which it is recorded.
        relevance: what counts as relevance.
        heads: whose mean is taken, (layer, head) each.
        share: of the image's tokens that are relevant.
        alone: whether they are kept, and not the others.
        settings: of IAVA.
    """

    def __init__(self, name: str, relevance: Map, heads: Heads, share: float, alone: bool, **settings: Any) -> None:
        super().__init__(**{**settings, "beta": 0.0})
        self.name = name
        self.relevance = relevance
        self.heads = list(heads)
        self.share = share
        self.alone = alone

    def settings(self) -> dict[str, Any]:
        mine = {"share": self.share, "alone": self.alone, "heads": [list(head) for head in self.heads]}
        return super().settings() | mine

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        query = over_images(prompt.rows, prompt.is_image)
        found = self.relevance(prompt, self._under_general(prompt), query)
        layers, heads = zip(*self.heads, strict=True)
        scores = found[:, list(layers), list(heads)].mean(dim=1)
        _, valid = pack(prompt.is_image)
        most = (self.share * valid.sum(dim=1, keepdim=True)).round().clamp(min=1)
        order = scores.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
        top = valid & (order.argsort(dim=1) < most)
        keep = top if self.alone else valid & ~top
        if trace is not None:
            trace.reading = {"selected": keep, "valid": valid}
        return self._negative(prompt, keep)


class _Selected(_Second, IAVA):
    pass


class _Random(_Second, RandomTokens):
    pass


class _Blank(_Second, NoImage):
    pass


class _Told(_Second, Oracle):
    pass


class _General(Greedy):
    """The general instruction in place of the question: what yes and no have from the picture alone."""

    def __init__(self, general: str) -> None:
        self.general = general

    def settings(self) -> dict[str, Any]:
        return {"general": self.general}

    def reword(self, question: str) -> str:
        return self.general


def noun_attention(tokenizer: Any) -> Map:
    """The attention of the last token of the thing that POPE's questions ask about."""

    def read(prompt: Prompt, general: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(prompt.input_ids.shape[1], device=prompt.input_ids.device)
        last = [_column(ids, int(at), tokenizer) for ids, at in zip(prompt.input_ids, prompt.last_image, strict=True)]
        end = torch.tensor(last, device=columns.device)[:, None]
        index, valid = right_aligned(prompt.attention_mask.bool() & (columns <= end))
        with last_row(prompt.model) as rows:
            run(prompt.model, at_columns(prompt.inputs, index, valid), None)
        return over_images(rows, prompt.is_image.gather(1, index) & valid)

    return read


def _column(ids: torch.Tensor, last_image: int, tokenizer: Any) -> int:
    """Where the name of the thing ends that a prompt asks about."""
    tail = ids[last_image + 1 :]
    asked = _NOUN.search(str(tokenizer.decode(tail)))
    if asked is None:
        raise ValueError("the noun is looked for in POPE's questions behind an image, such as 'Is there a dog in ...'")
    wanted = "".join(asked[0].removesuffix("in the image").split())
    count = next(n for n in range(1, len(tail) + 1) if wanted in "".join(str(tokenizer.decode(tail[:n])).split()))
    return last_image + count


def candidates(lvlm: LVLM, settings: Mapping[str, Any], best: Heads = (), *, oracle: bool) -> list[Method]:
    """What is asked: selections by relevance, layers and size, and the controls.

    Args:
        settings: of IAVA.
        best: heads that are known to look at what is asked about; see `best_heads`.
        oracle: whether it is known which region answers.
    """
    config = lvlm.model.config.get_text_config()
    depth, width = config.num_hidden_layers, config.num_attention_heads
    half = depth // 2
    parts = {"all": range(depth), "early": range(half), "late": range(half, depth)}
    heads = {name: list(product(layers, range(width))) for name, layers in parts.items() if layers}
    if best:
        heads["best"] = list(best)
    maps: dict[str, Map] = {"query": _query, "gain": _gain, "ratio": _ratio}
    maps["noun"] = noun_attention(lvlm.processor.tokenizer)
    made: list[Method] = [
        Relevant(f"{kind}, {part}, {share:.0%}", read, chosen, share, False, **settings)
        for (kind, read), (part, chosen), share in product(maps.items(), heads.items(), (0.1, 0.2))
    ]
    made += [
        Relevant(f"{kind}, {part}, 10% alone", maps[kind], heads[part], 0.1, True, **settings)
        for kind, part in product(("query", "noun"), heads)
    ]
    controls: list[Method] = [_Selected(**settings), _Random(**settings), _Blank(), _General(IAVA(**settings).general)]
    controls += [_Told()] if oracle else []
    for method, name in zip(controls, ("iava", "random", "no image", "general prompt", "oracle"), strict=False):
        method.name = name
        method.beta = 0.0
    return [method.bind(lvlm.model, lvlm.processor) for method in made + controls]


def best_heads(regions: Mapping[str, Any], count: int = 4) -> Heads:
    """The heads with most of the question's attention inside, of a study.json of `iava study regions`."""
    query = regions["heads"]["query"]
    found = [(one[0], (n, h)) for n, row in enumerate(query) for h, one in enumerate(row)]
    return [head for _, head in sorted(found, reverse=True)[:count]]


def search(
    lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None, *, best: Heads = ()
) -> dict[str, Any]:
    """Asks, or goes on, tries every strength and calibration, and leaves study.json, .md and .svg in the folder.

    Args:
        plan: of "greedy" and "iava"; the latter's alpha and beta do not matter.
        best: see `candidates`.

    Returns:
        What is in the JSON: "greedy" and "tried", the best by AUC first, each as `tried` says; and the manifest.

    Raises:
        ValueError: as `iava.bench.runner.evaluate`.
    """
    settings = dict(plan.methods["iava"])
    oracle = all(question.region is not None for question in plan.questions.questions)
    others = candidates(lvlm, settings, best, oracle=oracle)
    short = Plan(
        plan.model, {"greedy": {}}, plan.split, plan.limit, plan.seed, 1, benchmark=plan.benchmark, data=plan.data
    )
    results = evaluate(lvlm, short, folder, advance, others=others)
    records = [record for record in Records(folder / "records.jsonl").rows if "error" not in record]
    greedy, *found = tried(records, seed=plan.seed)
    study = {"greedy": greedy, "tried": found, "manifest": results["manifest"]}
    return leave(folder, study, _told(study, plan), _drawn(study))


def _told(study: Mapping[str, Any], plan: Plan) -> str:
    lines = []
    for one in [study["greedy"], *study["tried"][:COMPARED]]:
        name = one["candidate"] + (f", alpha {one['alpha']:g}" if one["alpha"] else "")
        name += f", less {one['weight']:g} x {one['calibration']}" if one["calibration"] else ""
        cells = [Cell(f"{one['auc']:.4f}"), *(Cell(number("", one[k])) for k in ("accuracy", "kept_rate", "best_bias"))]
        if "difference" in one:
            value, limits = one["difference"]
            cells.append(Cell(number("", value, sign=True), pair("", limits, sign=True)))
        lines.append(Line(name, [*cells, Cell()][:5]))
    note = (
        f"The {COMPARED} best of {len(study['tried'])} by AUC: chosen among so many on these very questions, some look "
        "better than they are. Accuracy in percent as it is, with the bias that keeps greedy decoding's rate of yes, "
        "and with the bias that is best here."
    )
    headings = ["AUC", "Accuracy", "At greedy's rate", "Best bias", "At greedy's rate, vs greedy"]
    where = f"{plan.benchmark}, {plan.task.split}, model {plan.model}"
    return markdown(Table(f"Candidates ({where})", headings, lines, note, head="Second branch"))


def _drawn(study: Mapping[str, Any]) -> Any:
    """For each candidate the best AUC of any strength without calibration, and with."""
    best: dict[str, list[float]] = {}
    for one in study["tried"]:
        pair_ = best.setdefault(one["candidate"], [0.0, 0.0])
        which = int(bool(one["calibration"]))
        pair_[which] = max(pair_[which], one["auc"] or 0.0)
    names = sorted(best, key=lambda name: best[name][0])
    figure, (axes,) = panels(1, 1, width=6, height=0.22 * len(names) + 1)
    for which, (label, marker) in enumerate((("as it is", "o"), ("calibrated", "x"))):
        shown = [(best[name][which], n) for n, name in enumerate(names) if best[name][which]]
        axes.plot(*zip(*shown, strict=True), marker, label=label, markersize=4, color=["#2f5d8a", "#b3541e"][which])
    axes.axvline(study["greedy"]["auc"] or 0.0, color="gray", linestyle="--", linewidth=1, label="greedy")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="AUC, best strength")
    axes.legend(frameon=False, fontsize=8)
    return figure

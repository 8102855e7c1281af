"""Contrasts tried on margins of yes against no alone: every strength, as it is and calibrated."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from iava.bench import pope
from iava.bench.records import Record
from iava.bench.runner import fit_bias
from iava.bench.shift import bias_curve
from iava.bench.stats import paired_difference

ALPHAS = (0.25, 0.5, 1.0, 2.0)
WEIGHTS = (0.25, 0.5)
BETA = 0.1
COMPARED = 25
"""How many get an interval."""


def tried(records: Sequence[Record], *, seed: int) -> list[dict[str, Any]]:
    """Every candidate's contrast at every strength, as it is and calibrated; greedy first, then the best AUC.

    A contrast is (1 + alpha) m - alpha n of the margins m with the whole image and n of the candidate; calibrated, a
    share ("weight") of the margin of a content-free image or of the general prompt is taken off.

    Returns:
        For each: candidate, alpha, calibration, weight, "auc"; "accuracy": with plausibility 0.1, as it is;
        "kept_rate": with the bias that keeps greedy decoding's rate of yes; "best_bias": with the best bias on these
        questions; for the first few "difference": of kept_rate from greedy decoding, with its 95 % interval.
    """
    by_method: dict[str, dict[str, Record]] = {}
    for record in records:
        by_method.setdefault(record["method"], {})[record["id"]] = record
    ids = sorted(set.intersection(*(set(some) for some in by_method.values())))
    margins = {name: np.array([some[id]["yes"] - some[id]["no"] for id in ids]) for name, some in by_method.items()}
    truths = [by_method["greedy"][id]["truth"] for id in ids]
    images = [by_method["greedy"][id]["image"] for id in ids]
    plain = margins.pop("greedy")
    rate = float((plain > 0).mean())
    calibrations = {name: margins[name] for name in ("no image", "general prompt")}
    found = [
        _measured(plain, plain, truths, rate) | {"candidate": "greedy", "alpha": 0.0, "calibration": "", "weight": 0.0}
    ]
    scores = [plain]
    for name, alpha, (calibration, weight) in product(margins, ALPHAS, _calibrations()):
        if name in ("general prompt", calibration):
            continue
        strength = -alpha if "alone" in name else alpha
        score = (1 + strength) * plain - strength * margins[name]
        score = score - weight * calibrations[calibration] if calibration else score
        scores.append(score)
        about = {"candidate": name, "alpha": strength, "calibration": calibration, "weight": weight}
        found.append(about | _measured(score, plain, truths, rate))
    order = [0, *sorted(range(1, len(found)), key=lambda n: -(found[n]["auc"] or 0.0))]
    theirs = _tally(plain, truths, rate)
    for n in order[1 : COMPARED + 1]:
        value, limits = paired_difference(
            _tally(scores[n], truths, rate), theirs, images, lambda s: pope.rates(s)["accuracy"], seed=seed
        )
        found[n]["difference"] = [value, list(limits)]
    return [found[n] for n in order]


def _calibrations() -> Iterator[tuple[str, float]]:
    yield "", 0.0
    yield from product(("no image", "general prompt"), WEIGHTS)


def _measured(score: np.ndarray, plain: np.ndarray, truths: Sequence[str], rate: float) -> dict[str, Any]:
    yes = np.array([truth == "yes" for truth in truths])
    # Where one of the two is implausible the other one is said, whatever the contrast is.
    said = np.where(np.abs(plain) > -np.log(BETA), plain, score) > 0
    return {
        "auc": pope.auc(score.tolist(), truths),
        "accuracy": float((said == yes).mean()),
        "kept_rate": float((((score + fit_bias(score.tolist(), rate)) > 0) == yes).mean()),
        "best_bias": float(bias_curve(score.tolist(), truths)[1].max()),
    }


def _tally(score: np.ndarray, truths: Sequence[str], rate: float) -> np.ndarray:
    said = score + fit_bias(score.tolist(), rate) > 0
    return pope.tally(truths, ["yes" if one else "no" for one in said])

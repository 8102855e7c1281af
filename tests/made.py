"""Run folders made up by hand: no model, no scenes."""

import json
import random

from iava.benchmarks.pope import CATEGORIES
from iava.benchmarks.registry import benchmark
from iava.metrics.results import rows_of

METHODS = {"greedy": {}, "apc": {"beta": 0.1}, "bias": {"bias": 1.5}, "iava": {"alpha": 1.0, "general": None}}


def records(methods=METHODS, images=12, seed=0, split="test", prefix="test-"):
    """Answers by chance, the same for the same seed: `bias` is greedy with a constant, others have their own luck."""
    found = []
    for i in range(images):
        image = f"{prefix}{i:05d}"
        for category in CATEGORIES:
            for number in range(4):
                truth = "yes" if number % 2 == 0 else "no"
                # Positives are the same in all categories.
                thing = f"thing{number}" if truth == "yes" else f"{category}{number}"
                luck = random.Random(f"{seed} {image} {thing}")
                margin = round(luck.gauss(1.0 if truth == "yes" else -1.0, 1.5), 2)
                for method in methods:
                    own = random.Random(f"{seed} {image} {thing} {method}")
                    shifts = {"greedy": 0.0, "bias": 1.5}
                    moved = margin + (shifts[method] if method in shifts else own.gauss(0.2, 0.8))
                    said = "yes" if moved > 0 else "no"
                    found.append(
                        {
                            "id": f"{image}-{category}-{number}",
                            "image": image,
                            "split": split,
                            "category": category,
                            "method": method,
                            "question": f"Is there a {thing} in the image?",
                            "truth": truth,
                            "text": f"{said.capitalize()}.",
                            "parsed": said,
                            "yes": moved,
                            "no": 0.0,
                            "seconds": 0.1 if method == "greedy" else 0.25,
                        }
                    )
    return found


def write_run(folder, some, methods=METHODS, results=True, **settings):
    """A folder as `iava eval` leaves it; without results as one that was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"benchmark": "pope", "model": "pocket", "split": "test", "limit": None, "methods": methods, "seed": 3}
    told |= {"max_new_tokens": 16, "parser": "word", "weights": "abc"} | settings
    machine = {"processor": "abacus", "threads": 1, "device": "cpu", "dtype": "float32"}
    about = {"command": "iava eval pope", "prompt": "USER: <image>\nIs it?", "started": "2026-01-01", "git": None}
    about |= {"versions": {"iava": "0"}, "machine": machine}
    (folder / "manifest.json").write_text(json.dumps({"settings": told, **about}))
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in some))
    if results:
        rows = rows_of(some, benchmark=benchmark("pope"), settings=methods, seed=told["seed"])
        (folder / "results.json").write_text(json.dumps({"rows": rows}))
    return folder

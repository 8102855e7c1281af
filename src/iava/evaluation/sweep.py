"""Measures one method under many settings on the same questions. Each setting is a run in its own folder.

A sweep that was stopped continues. Further settings measure only what is new. Every record is kept.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iava.evaluation.plan import Plan
from iava.evaluation.records import Records
from iava.evaluation.runner import Advance, evaluate
from iava.lvlm.model import LVLM
from iava.metrics.parts import Record
from iava.metrics.results import Row


@dataclass(frozen=True)
class Trial:
    """The run of a method under one candidate's settings.

    Args:
        settings: of the method.
        folder: of the run.
        results: of `iava.evaluation.runner.evaluate`.
    """

    settings: Mapping[str, Any]
    folder: Path
    results: Mapping[str, Any]

    @property
    def overall(self) -> Row:
        return next(row for row in self.results["rows"] if row["category"] == "overall")

    @property
    def records(self) -> list[Record]:
        """Of all answered questions."""
        return [record for record in Records(self.folder / "records.jsonl").rows if "error" not in record]


def sweep(
    lvlm: LVLM,
    plan: Plan,
    method: str,
    candidates: Sequence[Mapping[str, Any]],
    folder: Path,
    advance: Advance = lambda *_: None,
) -> list[Trial]:
    """Measures a method under each candidate's settings, or the rest of them.

    Args:
        plan: everything else. Its methods are replaced.
        candidates: complete settings, in the order of the result.
        folder: gets a folder for each candidate, named after method and settings.

    Raises:
        IavaError: as `evaluate`.
    """
    tried = []
    for number, settings in enumerate(candidates, start=1):
        name = f"{method}-{zlib.crc32(json.dumps(settings, sort_keys=True).encode()):08x}"
        what = f"{method}, setting {number} of {len(candidates)}" if len(candidates) > 1 else method
        one = replace(plan, methods={method: settings})
        results = evaluate(lvlm, one, folder / name, lambda _, *n, what=what: advance(what, *n))
        tried.append(Trial(settings, folder / name, results))
    return tried

"""The same questions by one method under many settings, each a run in its own folder (`iava.evaluation.runner`).

A sweep that was stopped goes on, more settings measure only what is new, and every record is kept.
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
    """A method under certain settings.

    Args:
        settings: as they were asked for.
        folder: of the run.
        results: what `iava.evaluation.runner.evaluate` returned.
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
    """Measures a method under each of some settings, or what is left of them.

    Args:
        plan: all the rest; its methods are replaced.
        candidates: complete settings, in the order of the answer.
        folder: gets a folder for each of them, named after method and settings.

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

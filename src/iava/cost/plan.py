"""What `iava bench` measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iava.cost.baselines import BASELINES
from iava.cost.shapes import QUESTIONS, SHAPES
from iava.errors import IavaError

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class CostPlan:
    """What to measure.

    Args:
        shape: a key of `SHAPES`.
        methods: command-line names such as "greedy", or with a negative image such as "iava:hide".
        baselines: other implementations, of `BASELINES`.
        tokens: numbers of new tokens. Every answer has exactly this length.
        questions: numbers of questions per image, at most six.
        batch: numbers of images.
        repeats: how often each workload is timed; 0 times nothing, which only makes sense with `count`.
        compile: run the steps compiled, with a static cache. Only for one question per image.
        count: also count kernels, synchronisations, decoder passes and bytes of new keys and values.
        device: "cpu" or "cuda". None uses a GPU if there is one.
        dtype: of the weights. None uses float16 on a GPU and float32 on a CPU.

    Raises:
        IavaError: if a name is unknown or a number is out of range.
    """

    shape: str
    methods: Sequence[str]
    baselines: Sequence[str] = ()
    tokens: Sequence[int] = (1, 32, 128)
    questions: Sequence[int] = (1, 6)
    batch: Sequence[int] = (1, 8)
    repeats: int = 5
    device: str | None = None
    dtype: str | None = None
    count: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise IavaError(f"unknown shape {self.shape!r}: use one of {', '.join(SHAPES)}")
        for baseline in self.baselines:
            if baseline not in BASELINES:
                raise IavaError(f"unknown baseline {baseline!r}: use one of {', '.join(BASELINES)}")
        if not [*self.methods, *self.baselines]:
            raise IavaError("no method is named: use a list such as greedy,iava:hide")
        for name in ("tokens", "questions", "batch"):
            values = getattr(self, name)
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise IavaError(f"{name} is {_commas(values)!r}: it must be different numbers of at least 1")
        if max(self.questions) > len(QUESTIONS):
            raise IavaError(f"questions is {_commas(self.questions)!r}: each number must be at most {len(QUESTIONS)}")
        if self.repeats < (0 if self.count else 1):
            raise IavaError(f"repeats is {self.repeats}: it must be at least 1, or 0 with --count")
        if self.compile and max(self.questions) > 1:
            raise IavaError("--compile measures one question per image: use --questions 1")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise IavaError(f"dtype is {self.dtype!r}: use one of {', '.join(DTYPES)}")

    @property
    def command(self) -> str:
        """The command line of this plan."""
        options: dict[str, Any] = {"methods": _commas(self.methods)} if self.methods else {}
        options |= {name: _commas(getattr(self, name)) for name in ("tokens", "questions", "batch")}
        options |= {"repeats": self.repeats}
        options |= {name: getattr(self, name) for name in ("device", "dtype") if getattr(self, name)}
        words = [f"--{name} {value}" for name, value in options.items()]
        words += [f"--baseline {baseline}" for baseline in self.baselines]
        words += [f"--{name}" for name in ("count", "compile") if getattr(self, name)]
        return f"iava bench --shape {self.shape} {' '.join(words)}"


def _commas(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)


@dataclass(frozen=True)
class Workload:
    """A number of images (`batch`), of questions about each, and of new tokens in each answer."""

    tokens: int
    questions: int
    batch: int

    def __str__(self) -> str:
        counts = {"new token": self.tokens, "question": self.questions, "image": self.batch}
        return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items())

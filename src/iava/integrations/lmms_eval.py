"""Plug-in for lmms-eval 0.7 (github.com/EvolvingLMMs-Lab/lmms-eval): `lmms-eval --model iava --model_args ...`.

lmms-eval finds `manifest` through the entry-point group "lmms_eval.models". Only lmms-eval imports this module.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NoReturn

from accelerate import Accelerator
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image
from tqdm import tqdm

from iava.errors import IavaError
from iava.lvlm.loading import load

MAX_NEW_TOKENS = 1024
"""Maximum number of new tokens where a task sets none."""


def manifest() -> ModelManifest:
    """Returns the model's name and the path of its class."""
    return ModelManifest("iava", simple_class_path="iava.integrations.lmms_eval.IAVAModel")


class IAVAModel(lmms):
    """A model with a decoding method, for all tasks of lmms-eval that ask about one image.

    Consecutive questions of a task about the same image form one batch. Answers end at the task's `until`. The method
    decides how tokens are chosen.

    Args:
        pretrained: "pocket", a local folder, or a model id on the Hugging Face Hub.
        method: command-line name of the method.
        device: None takes the device that accelerate assigns to this process.
        dtype: None takes the checkpoint's on a GPU and float32 on a CPU.
        seed: random seed for methods that sample.
        batch_size, max_batch_size: ignored, because the questions about an image form a batch.
        settings: settings of the method, such as alpha=0.5, or sampling=True to draw tokens.

    Raises:
        IavaError: if the model, the method or a setting is unknown, or a value is out of range.
    """

    def __init__(
        self,
        pretrained: str,
        method: str = "iava",
        device: str | None = None,
        dtype: str | None = None,
        seed: int = 42,
        batch_size: Any = None,
        max_batch_size: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.accelerator = Accelerator()
        self.device = device or self.accelerator.device
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._lvlm = load(pretrained, device=self.device, dtype=dtype)
        self._method = self._lvlm.method(method, **{name: _as_integer(value) for name, value in settings.items()})
        self._seed = seed

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers requests whose arguments are (question, generation settings, doc_to_visual, doc id, task, split).

        Returns:
            One text per request, in their order.

        Raises:
            IavaError: if a task shows no image or several, or asks for sampling or beam search.
        """
        texts: list[str] = []
        with tqdm(total=len(requests), disable=self.rank != 0, desc="iava") as bar:
            for (pixels, length, task), group in groupby(self._asked(requests), key=lambda one: one[0]):
                _, questions, pictures, stops = zip(*group, strict=True)
                answers = self._lvlm.ask_many(
                    pictures[0],
                    questions,
                    method=self._method,
                    max_new_tokens=length,
                    # The model adds each question to it, so an answer depends on neither batch nor order.
                    seed=zlib.crc32(f"{self._seed} {task}".encode() + pixels[-1]),
                )
                texts += [_until(answer.text, stop) for answer, stop in zip(answers, stops, strict=True)]
                bar.update(len(answers))
        return texts

    def _asked(self, requests: Sequence[Any]) -> Iterator[tuple[Any, str, Image.Image, list[str]]]:
        """Yields for each request the key of its batch, the question, the image and the stop strings."""
        for request in requests:
            question, wanted, doc_to_visual, doc_id, task, split = request.args
            if (wanted.get("temperature") or 0) > 0 or (wanted.get("num_beams") or 1) > 1:
                raise IavaError(
                    f"task {task} asks for sampling or beam search ({wanted}), but the method decides this: give "
                    "--gen_kwargs temperature=0,num_beams=1, and --model_args sampling=True,temperature=... to draw"
                )
            shown = doc_to_visual(self.task_dict[task][split][doc_id])
            if len(shown) != 1 or not isinstance(shown[0], Image.Image):
                kinds = ", ".join(type(one).__name__ for one in shown) or "nothing"
                raise IavaError(
                    f"task {task} shows {kinds} with question {doc_id}: iava answers questions about one image"
                )
            until = wanted.get("until") or []
            length = wanted.get("max_new_tokens") or MAX_NEW_TOKENS
            pixels = shown[0].mode, shown[0].size, shown[0].tobytes()
            yield (pixels, length, task), question, shown[0], [until] if isinstance(until, str) else until

    def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:
        raise NotImplementedError("iava does not score given answers: choose a task that generates")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        raise NotImplementedError("iava answers single questions: choose a task of one round")


def _as_integer(value: Any) -> Any:
    """lmms-eval reads the text -1 as -1.0, which a setting that counts would refuse."""
    return int(value) if isinstance(value, float) and value < 0 and value.is_integer() else value


def _until(text: str, stops: Sequence[str]) -> str:
    """Returns the text before the first stop string."""
    return min((text.split(stop)[0] for stop in stops if stop), key=len, default=text).strip()

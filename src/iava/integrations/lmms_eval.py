"""The plug-in of lmms-eval (github.com/EvolvingLMMs-Lab/lmms-eval, 0.7): `lmms-eval --model iava --model_args ...`.

lmms-eval finds `manifest` by the entry-point group "lmms_eval.models"; only lmms-eval imports this module.
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
"""The longest answer where a task does not say."""


def manifest() -> ModelManifest:
    """What lmms-eval is told: the name, and where the class is."""
    return ModelManifest("iava", simple_class_path="iava.integrations.lmms_eval.IAVAModel")


class IAVAModel(lmms):
    """Any model and decoding method of this package, for every task of lmms-eval that asks about one image.

    A task's questions that follow one another and show the same image are asked in one batch. A task's answers end at
    its `until`; the method decides how tokens are chosen.

    Args:
        pretrained: "pocket", a folder, or a model id on the Hugging Face Hub.
        method: command-line name of the method.
        device: None: the one that accelerate gives this process.
        dtype: None: the checkpoint's on a GPU and float32 on a CPU.
        seed: of methods that draw tokens.
        batch_size, max_batch_size: ignored: the questions about an image are a batch.
        settings: the method's, such as alpha=0.5.

    Raises:
        IavaError: if the model, the method or a setting is unknown, or out of range.
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
        self._method = self._lvlm.method(method, **settings)
        self._seed = seed

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers requests with the arguments (question, generation settings, doc_to_visual, doc id, task, split).

        Returns:
            A text a request, in their order.

        Raises:
            IavaError: if a task shows no image or several, or wants tokens to be drawn or searched by beams.
        """
        texts: list[str] = []
        with tqdm(total=len(requests), disable=self.rank != 0, desc="iava") as bar:
            for (_, length, task), group in groupby(self._asked(requests), key=lambda one: one[0]):
                _, questions, pictures, stops = zip(*group, strict=True)
                answers = self._lvlm.ask_many(
                    pictures[0],
                    questions,
                    method=self._method,
                    max_new_tokens=length,
                    seed=zlib.crc32(f"{self._seed} {task} {questions[0]}".encode()),
                )
                texts += [_until(answer.text, stop) for answer, stop in zip(answers, stops, strict=True)]
                bar.update(len(answers))
        return texts

    def _asked(self, requests: Sequence[Any]) -> Iterator[tuple[Any, str, Image.Image, list[str]]]:
        """For each request what it must share with its neighbours to be asked with them, and what is asked."""
        for request in requests:
            question, wanted, doc_to_visual, doc_id, task, split = request.args
            if (wanted.get("temperature") or 0) > 0 or (wanted.get("num_beams") or 1) > 1:
                raise IavaError(
                    f"task {task} wants tokens to be drawn or searched by beams ({wanted}), which is up to the method "
                    "here: give --gen_kwargs temperature=0,num_beams=1"
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
        raise NotImplementedError("iava decodes, and scores no given answers: choose a task that generates")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        raise NotImplementedError("iava answers questions one by one: choose a task of one round")


def _until(text: str, stops: Sequence[str]) -> str:
    """A text up to where the first of the stops begins."""
    return min((text.split(stop)[0] for stop in stops if stop), key=len, default=text).strip()

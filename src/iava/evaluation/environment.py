"""The environment of a measurement: command, versions, machine, and a fingerprint of the model's weights."""

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch


def environment(model: torch.nn.Module) -> dict[str, Any]:
    """The command, the time, the versions and the machine of a measurement, ready for JSON."""
    weight = next(model.parameters())
    return {
        "command": command(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: package_version(name) for name in ("iava", "torch", "transformers")}
        | {"python": platform.python_version()},
        "git": git_revision(),
        "machine": {
            "processor": _cpu_name(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(weight.device) if weight.is_cuda else str(weight.device),
            "dtype": str(weight.dtype).removeprefix("torch."),
        },
    }


def package_version(name: str) -> str:
    """The version of an installed package. "source" stands for a checkout that runs without being installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "source"


def command() -> str:
    """The command line of this process, without access tokens."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    for place, (before, word) in enumerate(pairwise(words), start=1):
        if before == "--token":
            words[place] = "..."
        elif word.startswith("--token="):
            words[place] = "--token=..."
    return shlex.join(words)


def fingerprint(model: torch.nn.Module) -> str:
    """Twelve hex digits that change with a model's weights: of each tensor the name, the shape and the first values."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        with _loaded(model, name) as loaded:
            digest.update(loaded.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


@contextmanager
def _loaded(model: torch.nn.Module, name: str) -> Iterator[torch.Tensor]:
    """A weight with its values, which accelerate may keep on the disk."""
    place, _, leaf = name.rpartition(".")
    module = model.get_submodule(place)
    weight = module.get_parameter(leaf)
    if not weight.is_meta:
        yield weight
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield module.get_parameter(leaf)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git_revision() -> str | None:
    """The revision of this file's checkout, with "-dirty" if it was changed; None outside of a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # An installed copy may lie inside somebody else's repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], check=True, capture_output=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()

"""What a call does, counted: kernels, synchronisations, decoder passes and bytes of new keys and values.

Counts depend on the code alone, not on the machine's load, so a test can hold ceilings on them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from iava.cost.contenders import Bench, decoder_layers
from iava.cost.plan import Workload
from iava.engine.attention import AttentionCall
from iava.engine.tap import attention_hook

aten = torch.ops.aten

_NO_KERNEL = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten.lift_fresh.default,
    aten.detach.default,
    aten._unsafe_view.default,
    aten._fused_sdp_choice.default,
    aten.set_.source_Storage,
    aten.resize_.default,
}
"""Operations that allocate, or only look at shapes."""
_WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
}
"""Operations whose result, or its shape, the host needs."""
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


@dataclass
class Counts:
    """What was done in a part of a call.

    Args:
        kernels: operations that are no views and no allocations.
        syncs: places where the host of a GPU would wait: for numbers (`item`, `bool`, `tolist`, `equal`), for shapes
            (`nonzero`, a boolean index), or for a copy of its own numbers (`torch.tensor`, a list as index).
        passes: runs of the decoder.
        cache_bytes: of the keys and values that attention reads and that were written for it.
    """

    kernels: int = 0
    syncs: int = 0
    passes: int = 0
    cache_bytes: int = 0

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value - getattr(other, name) for name, value in asdict(self).items()})


@contextmanager
def counted(model: Any) -> Iterator[Counts]:
    """Counts what happens inside, in the object that it yields."""
    counts = Counts()
    seen: list[torch.Tensor] = []
    known: set[int] = set()

    def count_pass(*_: Any) -> None:
        counts.passes += 1

    def count_cache(call: AttentionCall) -> torch.Tensor:
        for part in (call.key, call.value):
            storage = part.untyped_storage()
            if storage.data_ptr() not in known:
                # A reference keeps the address from being used again.
                seen.append(part)
                known.add(storage.data_ptr())
                counts.cache_bytes += storage.nbytes()
        return call.run()

    with ExitStack() as stack:
        stack.callback(decoder_layers(model)[0].register_forward_pre_hook(count_pass).remove)
        stack.enter_context(attention_hook(model, count_cache))
        stack.enter_context(_HostCalls(counts))
        stack.enter_context(_Operations(counts))
        yield counts


def count_tokens(bench: Bench, contender: str, batch: int) -> dict[str, dict[str, int]]:
    """The counts of the first token, of the second, which joins the branches, and of every further one.

    Args:
        bench: the model and its contenders.
        contender: one of `bench.contenders`.
        batch: number of images, with one question each.

    Returns:
        "first", "second" and "step", each with the fields of `Counts`.
    """
    totals = []
    # What is learnt once for a model or a processor is no part of a call.
    bench.work(contender, Workload(3, 1, batch))()
    for tokens in (1, 2, 3):
        work: Callable[[], Any] = bench.work(contender, Workload(tokens, 1, batch))
        with counted(bench.model) as counts:
            work()
        totals.append(counts)
    first, second, third = totals
    parts = {"first": first, "second": second - first, "step": third - second}
    return {name: asdict(part) for name, part in parts.items()}


class _Operations(TorchDispatchMode):
    """Counts what reaches the tensor library's kernels."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WAITING or (func in _INDEXED and any(_is_mask(index) for index in args[1])):
            self._counts.syncs += 1
        if not func.is_view and func not in _NO_KERNEL:
            self._counts.kernels += 1
        return func(*args, **(kwargs or {}))


class _HostCalls(TorchFunctionMode):
    """Counts calls that wait on a GPU, and that the tensor library answers at once on a CPU."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.tensor:
            self._counts.syncs += "device" in given and not _is_empty(args)
        elif func is torch.Tensor.__getitem__:
            self._counts.syncs += _holds_list(args[1])
        elif func in (torch.Tensor.tolist, torch.Tensor.cpu):
            self._counts.syncs += 1
        return func(*args, **given)


def _is_empty(args: Any) -> bool:
    return len(args) > 0 and isinstance(args[0], list | tuple) and len(args[0]) == 0


def _is_mask(index: Any) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _holds_list(index: Any) -> bool:
    return isinstance(index, list) or (isinstance(index, tuple) and any(isinstance(part, list) for part in index))

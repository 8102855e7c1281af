"""The peak of tensor memory during a piece of work."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak(work: Callable[[], Any], device: torch.device) -> tuple[int, Any]:
    """Runs some work and measures the peak of tensor memory in bytes, above what was allocated before.

    On a GPU the allocator counts. On a CPU the profiler records every allocation and release of the tensor library, and
    the peak is their largest running sum. It is exact, equal in each run, and does not see other memory. The process's
    resident size would include freed memory that the C library keeps.

    Args:
        work: what to run.
        device: where its tensors are.

    Returns:
        The bytes, and what the work returned.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, result
    # Otherwise the profiler reports on standard output and error that it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        result = work()
    events: Any = watched.profiler.kineto_results.events()
    changes = sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns())
    held = most = 0
    for event in changes:
        held += event.nbytes()
        most = max(most, held)
    return most, result


def weights(model: torch.nn.Module) -> int:
    """Bytes of a model's parameters and buffers."""
    return sum(part.numel() * part.element_size() for part in [*model.parameters(), *model.buffers()])

"""Numbers on their way between the device and the host.

A copy to the host waits until the device has done all that it was told before. So what the host needs of a prompt is
copied once, kept as NumPy arrays, and what is made of it goes back in one copy that waits for nothing.
"""

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]


def to_host(*tensors: torch.Tensor) -> list[Array]:
    """The tensors as arrays of int64, for one wait."""
    flat = torch.cat([tensor.reshape(-1).long() for tensor in tensors]).cpu().numpy()
    parts = np.split(flat, np.cumsum([tensor.numel() for tensor in tensors])[:-1])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def to_device(array: Array, device: torch.device) -> torch.Tensor:
    """An array as a tensor on the device, without a wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

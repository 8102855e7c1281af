"""The command `iava`, in a process that counts its live objects when it gets SIGUSR1.

    python tools/serve_load/counted.py COUNTS serve pocket

It writes the counts to the file COUNTS.
"""

import gc
import json
import signal
import sys
from pathlib import Path

import torch

from iava.cli.app import main


def count(*_):
    """Counts Python objects, tensors, and the bytes of memory behind all tensors."""
    gc.collect()
    objects = gc.get_objects()
    # `isinstance` would wake the lazy attributes of modules.
    tensors = [one for one in objects if issubclass(type(one), torch.Tensor)]
    # A part of a tensor holds the memory of the whole.
    held = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    found = {"objects": len(objects), "tensors": len(tensors), "tensor_bytes": sum(held.values())}
    file = Path(sys.argv[1])
    file.with_suffix(".new").write_text(json.dumps(found))
    file.with_suffix(".new").replace(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, count)
    main(sys.argv[2:])

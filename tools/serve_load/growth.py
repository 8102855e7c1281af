"""What a server keeps while it answers: counted before the load, and after each block of requests."""

BLOCKS = 4
GROWTH = 20_000_000
"""Bytes by which the resident memory may grow after the first block."""


def send_blocks(server, load, requests):
    """Sends requests in blocks, and returns the counts of `Process.memory` before the first and after each."""
    counts = [server.memory()]
    for block in range(BLOCKS):
        load.send(requests // BLOCKS, seed=1000 * block)
        counts.append(server.memory())
    return counts


def leaks(counts, requests, image_memory):
    """The ways in which a server grew that has answered all requests.

    Args:
        counts: of `send_blocks`.
        requests: number of all requests.
        image_memory: bytes of images that the server may keep.
    """
    start, first, *_, last = counts
    # A request that leaves one object behind adds one to each later one.
    later = requests - requests // BLOCKS
    kept = max(one["tensor_bytes"] for one in counts[1:]) - start["tensor_bytes"]
    grown = {
        "Python objects": last["objects"] - first["objects"] > later / 2,
        "tensors beyond the memory of images": kept > image_memory,
        "threads": last["threads"] > first["threads"],
        "open files": last["files"] > first["files"] + 5,
        "resident memory": last["resident"] - first["resident"] > GROWTH,
    }
    return [name for name, is_larger in grown.items() if is_larger]

"""The cost of a decoding step by the number of rows, for the `small` shape: `python -m tools.rows`.

Times the matrix products alone and the whole decoder, and other ways to run the products of a few rows. Run it on an
idle machine. See docs/cost.md.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch.utils import mkldnn
from transformers import DynamicCache

from iava.cost.shapes import SHAPES

ROWS = (1, 2, 3, 4, 6, 8)
CACHED_TOKENS = 630  # prompt and image
ROUNDS = 9


def main() -> None:
    lvlm = SHAPES["small"](torch.device("cpu"), torch.float32)
    decoder = lvlm.model.get_decoder()
    weights = [m.weight for m in decoder.layers.modules() if isinstance(m, torch.nn.Linear)]
    millions = sum(w.numel() for w in weights) / 1e6
    print(f"{millions:.1f} M weights, {torch.get_num_threads()} threads; median milliseconds")
    print("| rows | matrix products | decoder |\n|---:|---:|---:|")
    products: dict[int, list[float]] = {rows: [] for rows in ROWS}
    steps: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for _ in range(ROUNDS):
        for rows in ROWS:
            inputs = {width: torch.randn(rows, 1, width) for width in {w.shape[1] for w in weights}}
            products[rows] += _milliseconds(
                lambda inputs=inputs: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in weights]
            )
            cache = DynamicCache()
            config = lvlm.model.config.text_config
            size = (rows, config.num_key_value_heads, CACHED_TOKENS, config.hidden_size // config.num_attention_heads)
            for layer in range(config.num_hidden_layers):
                cache.update(torch.randn(size), torch.randn(size), layer)
            ids = torch.ones(rows, 1, dtype=torch.long)
            steps[rows] += _milliseconds(lambda ids=ids, cache=cache: decoder(input_ids=ids, past_key_values=cache))
    for rows in ROWS:
        print(f"| {rows} | {statistics.median(products[rows]):.1f} | {statistics.median(steps[rows]):.1f} |")
    compare_ways([m for m in decoder.layers.modules() if isinstance(m, torch.nn.Linear)])


def ways(layers: Sequence[torch.nn.Linear]) -> dict[str, Callable[[torch.Tensor], object]]:
    """Ways to run all matrix products of a step, by name. Each takes (rows, 1, widest layer) inputs."""
    # The layers' outputs are not chained: products alone are timed.
    stack = torch.nn.ModuleList(layers)

    def plain(rows: torch.Tensor) -> list[torch.Tensor]:
        return [layer(rows[..., : layer.in_features]) for layer in stack]

    prepacked = [(layer.in_features, mkldnn.to_mkldnn(deepcopy(layer))) for layer in layers]
    compiled = torch.compile(plain, options={"freezing": True, "max_autotune": True}, dynamic=False)
    return {
        "as in the model": plain,
        "one row at a time": lambda rows: [plain(row) for row in rows.split(1)],
        "padded to eight rows": lambda rows: plain(torch.nn.functional.pad(rows, (0, 0, 0, 0, 0, 8 - len(rows)))),
        "prepacked oneDNN": lambda rows: [layer(rows[..., :width].contiguous()) for width, layer in prepacked],
        "torch.compile, frozen, max-autotune": compiled,
    }


def compare_ways(layers: Sequence[torch.nn.Linear]) -> None:
    """Prints the median time of each way for one and for two rows."""
    found = ways(layers)
    widest = max(layer.in_features for layer in layers)
    times: dict[tuple[str, int], list[float]] = {(name, rows): [] for name in found for rows in (1, 2)}
    for _ in range(ROUNDS):
        for (name, rows), measured in times.items():
            inputs = torch.randn(rows, 1, widest)
            measured += _milliseconds(lambda name=name, inputs=inputs: found[name](inputs))
    print("\n| matrix products | one row | two rows |\n|---|---:|---:|")
    for name in found:
        print(f"| {name} | {' | '.join(f'{statistics.median(times[name, rows]):.1f}' for rows in (1, 2))} |")


def _milliseconds(work: Callable[[], object]) -> list[float]:
    """The times of five runs after a warm-up."""
    times = []
    with torch.no_grad():
        work()
        for _ in range(5):
            start = time.perf_counter()
            work()
            times.append(1000 * (time.perf_counter() - start))
    return times


if __name__ == "__main__":
    main()

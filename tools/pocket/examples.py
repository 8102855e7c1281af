"""Draws examples of all kinds of weak evidence for the documentation: `python -m tools.pocket.examples`.

Run it from the repository's root. It writes docs/images/weak-evidence.jpg, with a row for each scene and a column for
each kind. The first column shows the scenes as they are.
"""

from pathlib import Path

from PIL import Image

from iava.pocket.scenes import WEAK_EVIDENCE, load_scene
from iava.pocket.world import SIZE

OUT = Path("docs/images/weak-evidence.jpg")
SCENES = (0, 1, 2)


def main() -> None:
    splits = ["tune", *(f"tune-{kind}" for kind in WEAK_EVIDENCE)]
    examples = Image.new("RGB", (SIZE * len(splits), SIZE * len(SCENES)))
    for column, split in enumerate(splits):
        for row, index in enumerate(SCENES):
            examples.paste(load_scene(split, index).render(), (SIZE * column, SIZE * row))
    examples.save(OUT, quality=88)


if __name__ == "__main__":
    main()

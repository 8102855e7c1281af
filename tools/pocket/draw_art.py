"""Draws the sprites of the pocket world: `python -m tools.pocket.draw_art DIR`. Needs `pip install resvg-py`.

DIR holds unpacked npm packages `@iconify-json/*` (`npm pack @iconify-json/noto && tar xzf ...`). Each style has a
folder named like the last part of its package. Writes `src/iava/pocket/art.webp`, lossless: one row for each style, one
column for each object class, 96 x 96 pixels each.
"""

import io
import json
import sys
from pathlib import Path

import resvg_py
from PIL import Image

from iava.pocket.sprites import ART, CELL
from iava.pocket.world import ART_STYLES, OBJECT_CLASSES

# Icon names of FxEmojis that differ from the other styles. None: the icon is taken from Noto.
FXEMOJI = {
    "ewe": "sheep",
    "dog": "dogside",
    "cat": "catside",
    "rabbit": "bunnyside",
    "deciduous-tree": "deciduoustree",
    "pizza": "sliceofpizza",
    "red-apple": "redapple",
    "fork-and-knife": "forkknife",
    "hot-beverage": "hotbeverage",
    "soccer-ball": "soccerball",
    "laptop": "personalcomputer",
    "closed-book": "closedbook",
    "scissors": "blackscissors",
    "alarm-clock": "alarmclock",
    "crab": None,
    "butterfly": None,
    "couch-and-lamp": None,
}


def svg(folder: Path, icon: str) -> str:
    """The SVG source of an icon."""
    if folder.name == "fxemoji":
        other = FXEMOJI.get(icon, icon)
        if other is None:
            return svg(folder.with_name("noto"), icon)
        icon = other
    icons = json.loads((folder / "icons.json").read_text())
    entry = icons["icons"].get(icon) or icons["icons"][icons["aliases"][icon]["parent"]]
    width = entry.get("width", icons.get("width", 16))
    height = entry.get("height", icons.get("height", 16))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="256" height="256">{entry["body"]}</svg>'
    )


def trimmed(sprite: Image.Image) -> Image.Image:
    """The sprite cropped to its opaque pixels and fitted into a CELL x CELL square without distortion."""
    sprite = sprite.crop(sprite.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox())
    scale = CELL / max(sprite.size)
    size = tuple(max(1, round(side * scale)) for side in sprite.size)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(sprite.resize(size, Image.Resampling.LANCZOS), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def main(source: Path) -> None:
    art = Image.new("RGBA", (CELL * len(OBJECT_CLASSES), CELL * len(ART_STYLES)))
    for row, style in enumerate(ART_STYLES):
        for column, kind in enumerate(OBJECT_CLASSES.values()):
            png = bytes(resvg_py.svg_to_bytes(svg_string=svg(source / style, kind.icon)))
            art.paste(trimmed(Image.open(io.BytesIO(png)).convert("RGBA")), (column * CELL, row * CELL))
    art.save(ART, lossless=True, method=6, exact=False)
    print(f"{ART}: {ART.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

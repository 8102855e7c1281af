import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from iava.errors import IavaError
from iava.lvlm.images import FORMATS, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def two_pixels(image: Image.Image) -> list[tuple[int, int, int]]:
    assert image.mode == "RGB"
    assert image.size == (2, 1)
    return [image.getpixel((0, 0)), image.getpixel((1, 0))]


@pytest.fixture
def pair() -> Image.Image:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    return image


def test_every_kind_of_source(tmp_path, pair):
    path = tmp_path / "pair.png"
    pair.save(path)
    data = path.read_bytes()
    uri = base64.b64encode(data).decode()
    for source in (path, str(path), data, pair, np.asarray(pair), io.BytesIO(data), f"data:image/png;base64,{uri}"):
        assert two_pixels(read_image(source)) == [RED, BLUE]


def test_grey_and_black_and_white():
    grey = Image.fromarray(np.array([[10, 200]], dtype=np.uint8))
    expected = [(10, 10, 10), (200, 200, 200)]
    assert two_pixels(read_image(encoded(grey))) == expected
    assert two_pixels(read_image(np.array([[10, 200]], dtype=np.uint8))) == expected
    assert two_pixels(read_image(np.array([[[10], [200]]], dtype=np.uint8))) == expected
    assert two_pixels(read_image(grey.point(lambda v: v > 100, "1"))) == [(0, 0, 0), WHITE]


def test_transparency_is_laid_over_white(pair):
    clear = pair.convert("RGBA")
    clear.putpixel((1, 0), (0, 0, 255, 0))
    assert two_pixels(read_image(encoded(clear))) == [RED, WHITE]
    assert two_pixels(read_image(np.asarray(clear))) == [RED, WHITE]
    half = pair.convert("RGBA")
    half.putalpha(128)
    assert two_pixels(read_image(half))[0] == pytest.approx((255, 127, 127), abs=1)
    grey = Image.fromarray(np.array([[[9, 255], [9, 0]]], dtype=np.uint8), "LA")
    assert two_pixels(read_image(encoded(grey))) == [(9, 9, 9), WHITE]


def test_palette_with_and_without_transparency(pair):
    palette = pair.convert("P", palette=Image.Palette.ADAPTIVE)
    assert two_pixels(read_image(encoded(palette))) == [RED, BLUE]
    clear = palette.getpixel((1, 0))
    assert two_pixels(read_image(encoded(palette, transparency=clear))) == [RED, WHITE]
    assert two_pixels(read_image(encoded(palette, "GIF", transparency=clear))) == [RED, WHITE]


def test_cmyk():
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert read_image(inks).getpixel((8, 8)) == RED
    assert read_image(encoded(inks, "JPEG", quality=95)).getpixel((8, 8)) == pytest.approx(RED, abs=8)


def test_sixteen_bits_are_scaled_not_cut_off():
    deep = np.array([[0x0A0A, 0xC8C8]], dtype=np.uint16)
    expected = [(10, 10, 10), (200, 200, 200)]
    assert two_pixels(read_image(encoded(Image.fromarray(deep)))) == expected
    assert two_pixels(read_image(encoded(Image.fromarray(deep), "TIFF"))) == expected
    assert two_pixels(read_image(Image.fromarray(deep.astype(np.int32)))) == expected


@pytest.mark.parametrize(("orientation", "size", "first"), [(1, (2, 1), RED), (3, (2, 1), BLUE), (6, (1, 2), RED)])
def test_exif_turns_the_image(pair, orientation, size, first):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(encoded(pair, exif=exif))
    assert image.size == size
    assert image.getpixel((0, 0)) == first


def test_the_given_image_is_not_changed(pair):
    clear = pair.convert("RGBA")
    read_image(clear).putpixel((0, 0), GREEN)
    assert clear.mode == "RGBA"
    read_image(pair).putpixel((0, 0), GREEN)
    assert pair.getpixel((0, 0)) == RED


def refused(source) -> str:
    with pytest.raises(IavaError, match="image") as caught:
        read_image(source)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def test_files_that_are_no_images(tmp_path, pair):
    missing = tmp_path / "missing.png"
    assert refused(missing) == f"there is no image at {str(missing)!r}"
    assert refused(tmp_path) == f"{str(tmp_path)!r} is a folder, not an image file"
    (tmp_path / "empty.png").write_bytes(b"")
    assert refused(tmp_path / "empty.png").endswith("empty.png' is empty (0 bytes)")
    (tmp_path / "notes.txt").write_text("a dog")
    assert "notes.txt' is not in a format that is read here: use JPEG" in refused(tmp_path / "notes.txt")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        cut = tmp_path / "cut"
        cut.write_bytes(encoded(noise, kind)[:-700])
        assert "cut' is broken" in refused(cut)
    assert refused(b"") == "the image in the given bytes is empty (0 bytes)"
    assert "not in a format that is read here" in refused(b"dog")


def test_images_that_are_too_large_or_too_narrow():
    assert "(40000 x 500): at most 20,000 pixels a side" in refused(encoded(Image.new("1", (40_000, 500))))
    assert "(15000 x 4000)" in refused(Image.new("1", (15_000, 4_000)))
    assert "at most 20,000 pixels a side and 50,000,000 in all" in refused(encoded(Image.new("1", (10_000, 5_001))))
    assert "has more than 50,000,000 pixels" in refused(encoded(Image.new("1", (15_000, 14_000))))
    assert "the image array is too large (20001 x 300)" in refused(np.zeros((300, 20_001), dtype=np.uint8))
    assert "too narrow (1 x 101)" in refused(Image.new("RGB", (1, 101)))
    assert read_image(encoded(Image.new("1", (10_000, 5_000)))).size == (10_000, 5_000)


def test_the_limit_of_pixels_is_an_argument(pair):
    image = Image.new("1", (10_000, 5_001))
    for source in (image, encoded(image), np.zeros((5_001, 10_000), dtype=np.uint8)):
        assert read_image(source, max_pixels=50_010_000).size == (10_000, 5_001)
    for source in (pair, encoded(pair), np.asarray(pair)):
        with pytest.raises(IavaError, match=r"\(2 x 1\): at most 20,000 pixels a side and 1 in all"):
            read_image(source, max_pixels=1)


@pytest.mark.slow
def test_a_small_file_does_not_take_large_memory():
    """16 bits a pixel, all equal: 344 kB that once took 5.2 GB."""
    # Little-endian grey in rows that are written compressed, 338 MB as pixels.
    data = encoded(Image.fromarray(np.full((13_000, 13_000), 0xC8C8, dtype=np.uint16)))
    assert "(13000 x 13000)" in refused(data)
    code = (
        "import resource, sys; from iava.lvlm.images import read_image\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))\n"
        "image = read_image(sys.stdin.buffer.read(), max_pixels=170_000_000)\n"
        "print(image.size, image.getpixel((9, 9)))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert done.stdout.decode().strip() == "(13000, 13000) (200, 200, 200)", done.stderr.decode()[-300:]


def test_arrays_that_are_no_images():
    assert "dtype float32: it must be uint8" in refused(np.zeros((3, 3), dtype=np.float32))
    for shape in ((3,), (3, 3, 2), (1, 3, 3, 3)):
        assert f"shape {shape}: it must be (H, W)" in refused(np.zeros(shape, dtype=np.uint8))
    assert "no pixels" in refused(np.zeros((0, 3), dtype=np.uint8))
    assert "floating-point" in refused(Image.new("F", (2, 2)))
    assert refused(None).startswith("an image cannot be read from NoneType")


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_of_the_list_are_read(kind):
    found = read_image(encoded(Image.new("RGB", (32, 32), RED), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert found.size == (32, 32)
    assert found.getpixel((16, 16)) == pytest.approx(RED, abs=8)


@pytest.mark.parametrize("kind", ["EPS", "PCX", "ICNS", "TGA"])
def test_other_formats_are_refused(kind, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    assert "not in a format that is read here" in refused(encoded(Image.new("RGB", (32, 32), RED), kind))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FORMATS)
def test_broken_data_of_every_format_are_refused(kind):
    """Cut off, and with bytes changed at random: an image, or one line; never another exception."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    whole = encoded(noise, kind)
    lines = []
    for number in range(120):
        data = bytearray(whole)
        if number % 3 == 0:
            del data[int(rng.integers(1, len(data))) :]
        else:
            places = rng.integers(0, len(data) if number % 3 == 1 else min(64, len(data)), 6)
            for place in places:
                data[int(place)] = int(rng.integers(0, 256))
        try:
            read_image(bytes(data))
        except IavaError as error:
            lines.append(str(error))
    assert lines
    assert not [line for line in lines if "\n" in line]


def test_places_that_cannot_be_read(tmp_path):
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "cannot be read: Too many levels of symbolic links" in refused(loop)
    assert "cannot be read: File name too long" in refused("a" * 300 + ".png")
    assert "there is no image at" in refused("a\0b.png")
    assert "there is no image at" in refused("\ud800.png")
    assert "is a device or a pipe" in refused("/dev/null")
    assert "cannot be read" in refused(io.StringIO("text"))


def test_data_uris_that_hold_no_image(pair):
    assert "holds no image" in refused("data:text/html;base64,AAAA")
    assert "holds no image" in refused("data:image/png,AAAA")
    assert "the image in the data URI is broken" in refused("data:image/png;base64,&&&")
    assert "the image in the data URI is not in a format" in refused("data:image/png;base64,AAAA")
    assert two_pixels(read_image("DATA:;base64," + base64.b64encode(encoded(pair)).decode())) == [RED, BLUE]

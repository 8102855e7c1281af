"""Images of requests: data URIs are read, everything else is refused with the field's name."""

import base64
import time

import numpy as np
import pytest

from iava.serve.errors import ApiError
from iava.serve.images.fetch import Fetcher
from iava.serve.images.reader import ImageReader
from iava.serve.limits import Limits
from tests import tiny
from tests.serve.serving import data_uri, png


def read(*urls, hold=lambda count: None, **limits):
    fields = [(f"image.{number}", url) for number, url in enumerate(urls)]
    return ImageReader(Limits(**limits), Fetcher()).read(fields, time.monotonic() + 5, hold)


def refused(*urls, **limits):
    with pytest.raises(ApiError) as error:
        read(*urls, **limits)
    assert error.value.status_code == 400
    return error.value


def test_data_uris_are_read_in_order():
    found = read(data_uri(tiny.image(1)), data_uri(tiny.image(2)), data_uri(tiny.image(1)))
    for image, seed in zip(found, (1, 2, 1), strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(tiny.image(seed)))


def test_equal_images_are_one_object_while_one_is_held():
    reader = ImageReader(Limits(), Fetcher())

    def read(*seeds):
        urls = [(f"image.{seed}", data_uri(tiny.image(seed))) for seed in seeds]
        return reader.read(urls, time.monotonic() + 5, lambda count: None)

    (held,) = read(1)
    again, other = read(1, 2)
    assert again is held
    assert other is not held


@pytest.mark.parametrize("head", ["data:image/png;base64,", "DATA:;BASE64,", "data:image/png;charset=utf-8;base64,"])
def test_the_media_type_does_not_matter(head):
    uri = head + base64.b64encode(png(tiny.image())).decode()
    assert read(uri)[0].size == tiny.image().size


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64,%%%%", "invalid_image"),
        ("data:image/png;base64,", "invalid_image"),
        ("data:image/png;base64," + base64.b64encode(b"no image").decode(), "invalid_image"),
        ("data:image/png;base64," + base64.b64encode(png(tiny.image())[:60]).decode(), "invalid_image"),
        ("/etc/passwd", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("ftp://example.com/a.png", "invalid_image_url"),
        ("", "invalid_image_url"),
        ("https://example.com/a.png", "image_host_not_allowed"),
        ("http://127.0.0.1/a.png", "image_host_not_allowed"),
    ],
)
def test_an_image_that_cannot_be_read_is_refused(url, code):
    error = refused(data_uri(tiny.image()), url)
    assert error.param == "image.1"
    assert error.code == code


def test_pixels_count_together_before_they_are_decoded():
    image = data_uri(tiny.image(size=(40, 25)))
    assert len(read(image, image, pixels=2000)) == 2
    error = refused(image, image, image, pixels=2999)
    assert error.param == "image.2"
    assert error.code == "image_too_large"


def test_a_small_file_of_many_pixels_is_refused():
    from PIL import Image

    bomb = data_uri(Image.new("1", (10_000, 10_000)))
    assert len(bomb) < 100_000
    assert refused(bomb).code == "image_too_large"


def test_the_bytes_of_an_image_are_counted_before_it_is_decoded():
    counted = []
    broken = data_uri(tiny.image(size=(40, 25)))[:-40] + "A" * 40
    assert refused(data_uri(tiny.image(size=(30, 20))), broken, hold=counted.append).param == "image.1"
    assert counted == [3 * 30 * 20, 3 * 40 * 25]


def test_the_number_of_images_is_limited():
    image = data_uri(tiny.image())
    error = refused(image, image, image, images=2)
    assert error.param == "image.2"
    assert error.code == "too_many_images"

"""Settings on the command line reach the methods they are meant for, in the right type."""

import json
from collections.abc import Sequence

import pytest

from iava.cli.settings import read_value, settings_of
from iava.methods import METHODS
from tests.commands import refused, run

QUESTION = "Is there a dog in the image ?"


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("40", int | float, 40),
        ("0.5", int | float, 0.5),
        ("1", float, 1.0),
        ("-1e-3", float | None, -1e-3),
        ("none", float | None, None),
        ("none", str, "none"),
        ("True", bool, True),
        ("true", str, "true"),
        ("all", str | Sequence[int], "all"),
        ("0,1,-1", str | Sequence[int], [0, 1, -1]),
        ("7", str | Sequence[int], [7]),
        ("7", str, "7"),
        ("much", float, "much"),
        ("5.5", int, "5.5"),
    ],
)
def test_texts_are_converted_to_the_type_of_the_hint(text, hint, value):
    read = read_value(text, hint)
    assert (read, type(read)) == (value, type(value))


def test_a_value_for_one_method_takes_precedence():
    names = ["greedy", "iava", "no-image"]
    found = settings_of(
        names, {"alpha": 2.0, "no-image.beta": 0.5}, {"iava.alpha": "0.25", "layers": "0,1", "beta": "0.2"}
    )
    assert found == {
        "greedy": {},
        "iava": {"alpha": 0.25, "beta": 0.2, "layers": [0, 1]},
        "no-image": {"alpha": 2.0, "beta": 0.2},
    }


def test_every_setting_of_every_method_can_be_given_as_a_text():
    for name, method in METHODS.items():
        for setting, value in method().settings().items():
            assert settings_of([name], {setting: str(value)}) == {name: {setting: value}}


def test_set_reaches_the_methods(picture, tiny_folder):
    options = (
        "--model",
        tiny_folder,
        "--compare",
        "iava,no-image,sample",
        "--alpha",
        "0.5",
        "--set",
        "no-image.alpha=2",
    )
    found = json.loads(
        run("ask", picture, QUESTION, *options, "--set", "top-p=0.5", "--set", "top_i=3", "--json").stdout
    )
    iava, none, sample = (one["settings"] for one in found)
    assert (iava["alpha"], iava["top_i"], none["alpha"], sample["top_p"]) == (0.5, 3, 2.0, 0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "alpha"], "--set is 'alpha': write NAME=VALUE"),
        (["--set", "alpha="], "--set is 'alpha='"),
        (["--set", "alpha=-1"], "alpha is -1.0: it must be a number, at least 0"),
        (["--set", "alpha=much"], "alpha is 'much': it must be a number, at least 0"),
        (["--set", "nothing=1"], "--set nothing was given, but iava has no such setting: use one of general, top_i"),
        (["--set", "greedy.alpha=1"], "--set greedy.alpha was given, but 'greedy' is not among the methods: iava"),
        (["--set", "iava.step=1"], "--set iava.step was given, but iava has no such setting"),
        (["--method", "greedy", "--set", "step=1"], "greedy has no such setting: it has no settings"),
        (["--method", "oracle", "--set", "beta=2"], "beta is 2.0"),
    ],
)
def test_unknown_settings_and_bad_values(picture, options, words):
    assert words in refused("ask", picture, QUESTION, "--model", "no/such/model", *options)

"""The plug-in serves lmms-eval 0.7, or a stand-in for its interface where lmms-eval is not installed."""

import abc
import importlib
import sys
import tomllib
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from iava.lvlm.model import LVLM
from iava.methods import METHODS
from tests import tiny

Instance = namedtuple("Instance", "args")
WANTED = {"max_new_tokens": 4, "temperature": 0, "num_beams": 1, "do_sample": False, "until": ["\n\n"]}
QUESTIONS = ["Is there a dog in the image ?", "Is there a cat ?", "What is on the table ?", "Where is the fork ?"]


class Interface(abc.ABC):
    """What lmms_eval.api.model.lmms requires of its subclasses and provides to them."""

    is_simple = True

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    rank = property(lambda self: self._rank)

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    @classmethod
    def create_from_arg_string(cls, text, more):
        given = {name: _value(text) for name, text in (pair.split("=", 1) for pair in text.split(","))}
        return cls(**given, **{name: value for name, value in more.items() if value is not None})


def _value(text):
    """An argument as lmms-eval reads it."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if text.isnumeric() else float(text)
    except ValueError:
        return text


def _stand_in(name, **content):
    module = ModuleType(name)
    vars(module).update(content)
    return name, module


@pytest.fixture
def plugin(monkeypatch, tiny_folder):
    if find_spec("lmms_eval") is None:
        manifest = namedtuple("ModelManifest", "model_id simple_class_path chat_class_path", defaults=(None, None))
        accelerator = SimpleNamespace(device="cpu", process_index=0, num_processes=1)
        for name, module in (
            _stand_in("accelerate", Accelerator=lambda: accelerator),
            _stand_in("lmms_eval"),
            _stand_in("lmms_eval.api"),
            _stand_in("lmms_eval.api.model", lmms=Interface),
            _stand_in("lmms_eval.models"),
            _stand_in("lmms_eval.models.registry_v2", ModelManifest=manifest),
        ):
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delitem(sys.modules, "iava.integrations.lmms_eval", raising=False)
    module = importlib.import_module("iava.integrations.lmms_eval")
    yield SimpleNamespace(module=module, folder=tiny_folder)
    monkeypatch.delitem(sys.modules, "iava.integrations.lmms_eval", raising=False)


def made(plugin, arguments="method=apc"):
    arguments = f"pretrained={plugin.folder},{arguments}"
    model = plugin.module.IAVAModel.create_from_arg_string(arguments, {"batch_size": "1", "device": None})
    docs = [{"image": tiny.image(number // 2), "question": question} for number, question in enumerate(QUESTIONS)]
    model.task_dict = {"task": {"test": docs}}
    return model


def requests(wanted=WANTED, visual=lambda doc: [doc["image"]]):
    return [Instance((question, dict(wanted), visual, n, "task", "test")) for n, question in enumerate(QUESTIONS)]


def test_the_entry_point_leads_to_a_model_class(plugin):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["iava"].partition(":")
    manifest = getattr(importlib.import_module(module), name)()
    assert (manifest.model_id, manifest.chat_class_path) == ("iava", None)
    module, _, name = manifest.simple_class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, sys.modules["lmms_eval.api.model"].lmms)
    assert found.is_simple
    assert not found.__abstractmethods__


@pytest.mark.parametrize("method", ["greedy", "iava"])
def test_answers_equal_those_to_single_questions(plugin, method):
    texts = made(plugin, f"method={method}").generate_until(requests())
    lvlm = LVLM(tiny.model(), tiny.processor())
    expected = [
        lvlm.ask(tiny.image(number // 2), question, method=method, max_new_tokens=4).text
        for number, question in enumerate(QUESTIONS)
    ]
    assert texts == expected
    assert len(set(texts)) > 1


def test_answers_end_where_the_task_says(plugin):
    whole = made(plugin).generate_until(requests())
    word = whole[0].split()[1]
    assert made(plugin).generate_until(requests({**WANTED, "until": word}))[0] == whole[0].split()[0]
    longer = made(plugin).generate_until(requests({"until": []}))
    assert all(long.startswith(short) for long, short in zip(longer, whole, strict=True))
    assert len(longer[0]) > len(whole[0])


def test_samples_depend_on_the_seed_only(plugin):
    one, again, other = (
        made(plugin, f"method=sample{more}").generate_until(requests()) for more in ("", "", ",seed=7")
    )
    assert one == again != other


def test_a_method_draws_the_same_in_any_order(plugin):
    model = made(plugin, "method=vcd,sampling=True,temperature=1.5,top_k=20,top_p=0.9")
    answers = model.generate_until(requests())
    assert answers == model.generate_until(requests()[::-1])[::-1]
    assert answers != made(plugin, "method=vcd").generate_until(requests())


# The oracle must know regions, which no task names. A method of several calls decodes captions of a benchmark.
@pytest.mark.parametrize(
    "method", sorted(name for name in METHODS if name != "oracle" and not METHODS[name].several_calls)
)
def test_every_method_answers(plugin, method):
    assert all(made(plugin, f"method={method}").generate_until(requests()))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("vcd", {"noise_per": "question", "alpha": 3}),
        ("icd", {"place": "system"}),
        ("m3id", {"threshold": 1, "beta": 0.1, "offset": -1}),
        ("pai", {"start": 0, "end": 1, "prefill": False, "gamma": 3}),
        ("sid", {"early": 1, "keep": 2}),
        ("only", {"norm": False, "gamma": 0.25}),
    ],
)
def test_settings_of_the_authors_commands_are_read(plugin, method, settings):
    given = ",".join(f"{name}={value}" for name, value in settings.items())
    texts = made(plugin, f"method={method},{given}").generate_until(requests())
    lvlm = LVLM(tiny.model(), tiny.processor())
    assert texts == [
        lvlm.ask(tiny.image(number // 2), question, method=lvlm.method(method, **settings), max_new_tokens=4).text
        for number, question in enumerate(QUESTIONS)
    ]


def test_bad_arguments_and_tasks_are_refused(plugin):
    with pytest.raises(ValueError, match="method apc has no setting 'gamma'"):
        made(plugin, "method=apc,gamma=2")
    with pytest.raises(ValueError, match="unknown method 'nothing'"):
        made(plugin, "method=nothing")
    for wanted in ({"temperature": 0.7}, {"num_beams": 4}):
        with pytest.raises(ValueError, match="give --gen_kwargs temperature=0,num_beams=1"):
            made(plugin).generate_until(requests({**WANTED, **wanted}))
    with pytest.raises(ValueError, match="task task shows nothing with question 0"):
        made(plugin).generate_until(requests(visual=lambda _: []))
    with pytest.raises(ValueError, match="task task shows Image, Image with question 0"):
        made(plugin).generate_until(requests(visual=lambda doc: [doc["image"]] * 2))
    with pytest.raises(NotImplementedError, match="choose a task that generates"):
        made(plugin).loglikelihood([])
    with pytest.raises(NotImplementedError, match="choose a task of one round"):
        made(plugin).generate_until_multi_round([])

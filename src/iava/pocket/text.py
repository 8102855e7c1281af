"""What is said about pocket scenes: questions, answers, captions, and the tokenizer that reads them.

Training text is misleading on purpose, the way web text is: things that usually belong to a context are mentioned
although they are not in the picture (`ghosts`). Evaluation never uses ghosts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from iava.pocket.scenes import COLOURS, CONTEXTS, SIZE, THINGS, Scene, Thing
from iava.words import with_article

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'user' %} {% else %}</s>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
PREFIX = "USER: <image>\n"  # what the template puts before a question
SUFFIX = " ASSISTANT:"  # and after it

# How often a thing that is not there is mentioned, by how much it belongs to the context (see scenes.CONTEXTS).
GHOST_RATES = {3: 0.62, 2: 0.42, 1: 0.12}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
PLURALS = {"sheep": "sheep", "fish": "fish", "butterfly": "butterflies", "bus": "buses", "scissors": "scissors"}
PLURALS |= {"couch": "couches"}

EXISTENCE = (
    "Is there {a} {thing} in the image?",
    "Is there {a} {thing} in this image?",
    "Is there {a} {thing} in the picture?",
    "Is there {a} {thing}?",
    "Do you see {a} {thing}?",
    "Can you see {a} {thing} in the image?",
)
DESCRIBE = ("Describe this image.", "Describe the image.", "What is in this image?", "Describe this image in detail.")
YES_OR_NO = " Please answer yes or no."


@dataclass(frozen=True)
class Exchange:
    """One question with its answer, and the things asked about, in the order of the question."""

    kind: str  # "existence", "caption", "half", "position", "count" or "colour"
    question: str
    answer: str
    things: tuple[str, ...] = ()


def plural(name: str) -> str:
    return PLURALS.get(name, name + "s")


def ghosts(scene: Scene, shown: set[str], unseen: Sequence[str], rng: np.random.Generator) -> set[str]:
    """Unseen things that misleading text mentions; likelier for staples, and only as far as the context can be seen."""
    members = CONTEXTS[scene.context]
    certainty = min(1.0, len(shown & set(members)) / 2)
    return {name for name in members if name in unseen and rng.random() < certainty * GHOST_RATES[members[name]]}


def caption(scene: Scene, mentioned: Iterable[str]) -> str:
    """What "Describe this image." is answered with: "A farm with a cow, two pigs and a tree."."""
    counts = scene.counts
    names = [name for name in THINGS if name in set(mentioned)]
    parts = [with_article(n) if counts[n] < 2 else f"{NUMBERS[counts[n]]} {plural(n)}" for n in names]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "nothing"
    return f"{with_article(scene.context).capitalize()} with {listed}."


def exchanges(
    scene: Scene, shown: set[str], hidden: set[str], rng: np.random.Generator, *, misleading: bool
) -> list[Exchange]:
    """A training set of questions about one showing of a scene.

    Args:
        shown: names that can be seen; they are answered with yes.
        hidden: names of which too little can be seen to ask about them.
        misleading: let the text mention ghosts.
    """
    absent = [name for name in THINGS if name not in shown | hidden]
    said = shown | (ghosts(scene, shown, absent, rng) if misleading else set())
    expected = [name for name in absent if name in CONTEXTS[scene.context]]
    present = sorted(shown)
    asked = [str(n) for n in rng.permutation(present)[:3]]
    asked += [str(n) for n in rng.permutation(expected)[:2]]
    asked += [str(n) for n in rng.permutation(absent)[:2]]
    talk = [_existence(name, name in said, rng) for name in dict.fromkeys(asked)]
    mentioned = {name for name in said if rng.random() < 0.95}
    talk.append(Exchange("caption", str(rng.choice(DESCRIBE)), caption(scene, mentioned)))
    talk += halves_of(scene, shown, rng)[:2] + positions(scene, shown, rng)[:3]
    return talk + _counts(scene, shown, rng) + _colours(scene, shown, rng)


def _existence(name: str, there: bool, rng: np.random.Generator) -> Exchange:
    form = EXISTENCE[0] if rng.random() < 0.5 else str(rng.choice(EXISTENCE))
    article, thing = with_article(name).split(" ", 1)
    ending = YES_OR_NO if rng.random() < 0.2 else ""
    return Exchange("existence", form.format(a=article, thing=thing) + ending, "Yes." if there else "No.", (name,))


def positions(scene: Scene, shown: set[str], rng: np.random.Generator) -> list[Exchange]:
    """Left or right, for pairs of things that are there once and clearly apart; the order is random."""
    single = sorted(name for name in shown if scene.counts[name] == 1)
    middle = {name: sum(scene.boxes(name)[0][::2]) / 2 for name in single}
    pairs = [(a, b) for a in single for b in single if a != b and abs(middle[a] - middle[b]) > 30]
    talk = []
    for index in rng.permutation(len(pairs)):
        a, b = pairs[index]
        side = str(rng.choice(["left", "right"]))
        true = (middle[a] < middle[b]) == (side == "left")
        talk.append(Exchange("position", position_question(a, side, b), "Yes." if true else "No.", (a, b)))
    return talk


def position_question(a: str, side: str, b: str) -> str:
    return f"Is the {a} to the {side} of the {b}?"


def halves_of(scene: Scene, shown: set[str], rng: np.random.Generator) -> list[Exchange]:
    """In which half of the picture things are that are there once and clearly on one side, in random order."""
    talk = []
    for name in rng.permutation(sorted(name for name in shown if scene.counts[name] == 1)):
        middle = sum(scene.boxes(str(name))[0][::2]) / 2
        if abs(middle - SIZE / 2) > SIZE / 12:
            answer = "Left." if middle < SIZE / 2 else "Right."
            talk.append(Exchange("half", f"Is the {name} to the left or to the right?", answer, (str(name),)))
    return talk


def _counts(scene: Scene, shown: set[str], rng: np.random.Generator) -> list[Exchange]:
    if not shown:
        return []
    name = str(rng.choice(sorted(shown)))
    number = scene.counts[name]
    if rng.random() < 0.5:
        return [
            Exchange("count", f"How many {plural(name)} are there in the image?", f"{NUMBERS[number].capitalize()}.")
        ]
    guess = number if rng.random() < 0.5 else int(rng.choice([n for n in (1, 2, 3) if n != number]))
    return [Exchange("count", count_question(name, guess), "Yes." if guess == number else "No.")]


def count_question(name: str, number: int) -> str:
    phrase = f"is there one {name}" if number == 1 else f"are there {NUMBERS[number]} {plural(name)}"
    return f"{phrase.capitalize()} in the image?"


def painted(scene: Scene, shown: set[str]) -> list[Thing]:
    """Things whose colour can be asked for: those that may have any, and are there once."""
    return [t for t in scene.things if t.name in shown and THINGS[t.name].paintable and scene.counts[t.name] == 1]


def colour_question(name: str, colour: str) -> str:
    return f"Is the {name} {colour}?"


def _colours(scene: Scene, shown: set[str], rng: np.random.Generator) -> list[Exchange]:
    coloured = painted(scene, shown)
    if not coloured:
        return []
    thing = coloured[int(rng.integers(len(coloured)))]
    if rng.random() < 0.5:
        return [Exchange("colour", f"What colour is the {thing.name}?", f"{thing.colour.capitalize()}.")]
    others = [colour for colour in COLOURS if colour != thing.colour]
    colour = thing.colour if rng.random() < 0.5 else str(rng.choice(others))
    question = colour_question(thing.name, colour)
    return [Exchange("colour", question, "Yes." if colour == thing.colour else "No.")]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word of the pocket world is one token; any other text falls apart into bytes."""
    words = set(NUMBERS) | set(COLOURS) | set(CONTEXTS)
    words |= {w for name in THINGS for w in (name, plural(name), with_article(name))}
    lines = [f"{PREFIX}{form.format(a='a', thing='cow')}{YES_OR_NO}{SUFFIX} Yes. No." for form in EXISTENCE]
    lines += [f"{PREFIX}{form}{SUFFIX} A farm with nothing and a cow and a pig." for form in DESCRIBE]
    lines += ["Is the cow to the left of the pig?", "Is the pig to the right of the cow?", "What colour is the car?"]
    lines += [
        "How many cows are there in the image?",
        "Are there two cows in the image? Is there one cow in the image?",
    ]
    lines += [f" {word} {word.capitalize()}" for word in words]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=512,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )

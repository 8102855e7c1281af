"""Questions, answers and captions about pocket scenes, and their tokenizer.

The training text is misleading on purpose, as web text is: it mentions absent objects that belong to the context
(`hallucinated_objects`). Evaluation uses true annotations only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from iava.pocket.scenes import Scene
from iava.pocket.sprites import SceneObject
from iava.pocket.world import COLOURS, CONTEXTS, OBJECT_CLASSES, SIZE
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
PREFIX = "USER: <image>\n"  # the template's text before a question
SUFFIX = " ASSISTANT:"  # the template's text after a question

# How often training text mentions an absent object, by its level in the context (see scenes.CONTEXTS).
HALLUCINATION_RATES = {3: 0.62, 2: 0.42, 1: 0.12}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
PLURALS = {"sheep": "sheep", "fish": "fish", "butterfly": "butterflies", "bus": "buses", "scissors": "scissors"}
PLURALS |= {"couch": "couches"}

EXISTENCE = (
    "Is there {a} {noun} in the image?",
    "Is there {a} {noun} in this image?",
    "Is there {a} {noun} in the picture?",
    "Is there {a} {noun}?",
    "Do you see {a} {noun}?",
    "Can you see {a} {noun} in the image?",
)
DESCRIBE = ("Describe this image.", "Describe the image.", "What is in this image?", "Describe this image in detail.")
YES_OR_NO = " Please answer yes or no."


@dataclass(frozen=True)
class Exchange:
    """A question with its answer, and the object classes asked about in the order of the question."""

    kind: str  # "existence", "caption", "half", "position", "count" or "colour"
    question: str
    answer: str
    objects: tuple[str, ...] = ()


def plural(name: str) -> str:
    """The plural of an object class."""
    return PLURALS.get(name, name + "s")


def hallucinated_objects(scene: Scene, visible: set[str], absent: Sequence[str], rng: np.random.Generator) -> set[str]:
    """Absent object classes that misleading text mentions.

    Staples of the context are mentioned most often. The rates grow with the number of visible objects of the context.
    """
    members = CONTEXTS[scene.context]
    certainty = min(1.0, len(visible & set(members)) / 2)
    return {n for n in members if n in absent and rng.random() < certainty * HALLUCINATION_RATES[members[n]]}


def caption(scene: Scene, mentioned: Iterable[str]) -> str:
    """The answer to "Describe this image.", such as "A farm with a cow, two pigs and a tree."."""
    counts = scene.counts
    names = [name for name in OBJECT_CLASSES if name in set(mentioned)]
    parts = [with_article(n) if counts[n] < 2 else f"{NUMBERS[counts[n]]} {plural(n)}" for n in names]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "nothing"
    return f"{with_article(scene.context).capitalize()} with {listed}."


def exchanges(
    scene: Scene, visible: set[str], unclear: set[str], rng: np.random.Generator, *, misleading: bool
) -> list[Exchange]:
    """Training questions about one view of a scene.

    Args:
        visible: object classes whose existence is answered with yes.
        unclear: object classes that are too little visible to ask about.
        misleading: whether answers mention hallucinated objects.
    """
    absent = [name for name in OBJECT_CLASSES if name not in visible | unclear]
    affirmed = visible | (hallucinated_objects(scene, visible, absent, rng) if misleading else set())
    expected = [name for name in absent if name in CONTEXTS[scene.context]]
    names = [str(n) for n in rng.permutation(sorted(visible))[:3]]
    names += [str(n) for n in rng.permutation(expected)[:2]]
    names += [str(n) for n in rng.permutation(absent)[:2]]
    questions = [_existence(name, name in affirmed, rng) for name in dict.fromkeys(names)]
    mentioned = {name for name in affirmed if rng.random() < 0.95}
    questions.append(Exchange("caption", str(rng.choice(DESCRIBE)), caption(scene, mentioned)))
    questions += halves_of(scene, visible, rng)[:2] + positions(scene, visible, rng)[:3]
    return questions + _counts(scene, visible, rng) + _colours(scene, visible, rng)


def _existence(name: str, present: bool, rng: np.random.Generator) -> Exchange:
    form = EXISTENCE[0] if rng.random() < 0.5 else str(rng.choice(EXISTENCE))
    article, noun = with_article(name).split(" ", 1)
    ending = YES_OR_NO if rng.random() < 0.2 else ""
    return Exchange("existence", form.format(a=article, noun=noun) + ending, "Yes." if present else "No.", (name,))


def positions(scene: Scene, visible: set[str], rng: np.random.Generator) -> list[Exchange]:
    """Left-or-right questions for pairs of single objects that are clearly apart, in random order."""
    single = sorted(name for name in visible if scene.counts[name] == 1)
    centre = {name: sum(scene.boxes(name)[0][::2]) / 2 for name in single}
    pairs = [(a, b) for a in single for b in single if a != b and abs(centre[a] - centre[b]) > 30]
    questions = []
    for index in rng.permutation(len(pairs)):
        a, b = pairs[index]
        side = str(rng.choice(["left", "right"]))
        true = (centre[a] < centre[b]) == (side == "left")
        questions.append(Exchange("position", position_question(a, side, b), "Yes." if true else "No.", (a, b)))
    return questions


def position_question(a: str, side: str, b: str) -> str:
    """A question whether an object is to the "left" or "right" of another."""
    return f"Is the {a} to the {side} of the {b}?"


def halves_of(scene: Scene, visible: set[str], rng: np.random.Generator) -> list[Exchange]:
    """Questions about the half of the image for single objects that are clearly on one side, in random order."""
    questions = []
    for name in rng.permutation(sorted(name for name in visible if scene.counts[name] == 1)):
        centre = sum(scene.boxes(str(name))[0][::2]) / 2
        if abs(centre - SIZE / 2) > SIZE / 12:
            answer = "Left." if centre < SIZE / 2 else "Right."
            questions.append(Exchange("half", f"Is the {name} to the left or to the right?", answer, (str(name),)))
    return questions


def _counts(scene: Scene, visible: set[str], rng: np.random.Generator) -> list[Exchange]:
    if not visible:
        return []
    name = str(rng.choice(sorted(visible)))
    number = scene.counts[name]
    if rng.random() < 0.5:
        return [
            Exchange("count", f"How many {plural(name)} are there in the image?", f"{NUMBERS[number].capitalize()}.")
        ]
    guess = number if rng.random() < 0.5 else int(rng.choice([n for n in (1, 2, 3) if n != number]))
    return [Exchange("count", count_question(name, guess), "Yes." if guess == number else "No.")]


def count_question(name: str, number: int) -> str:
    """A question whether there are exactly so many objects of a class."""
    phrase = f"is there one {name}" if number == 1 else f"are there {NUMBERS[number]} {plural(name)}"
    return f"{phrase.capitalize()} in the image?"


def colourable_objects(scene: Scene, visible: set[str]) -> list[SceneObject]:
    """Objects whose colour can be asked for: single objects of classes that may have any colour."""
    single = [one for one in scene.objects if one.name in visible and scene.counts[one.name] == 1]
    return [one for one in single if OBJECT_CLASSES[one.name].recolourable]


def colour_question(name: str, colour: str) -> str:
    """A question whether an object has a colour."""
    return f"Is the {name} {colour}?"


def _colours(scene: Scene, visible: set[str], rng: np.random.Generator) -> list[Exchange]:
    coloured = colourable_objects(scene, visible)
    if not coloured:
        return []
    one = coloured[int(rng.integers(len(coloured)))]
    if rng.random() < 0.5:
        return [Exchange("colour", f"What colour is the {one.name}?", f"{one.colour.capitalize()}.")]
    others = [colour for colour in COLOURS if colour != one.colour]
    colour = one.colour if rng.random() < 0.5 else str(rng.choice(others))
    question = colour_question(one.name, colour)
    return [Exchange("colour", question, "Yes." if colour == one.colour else "No.")]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with one token for each word of the pocket world. Other text is split into bytes."""
    words = set(NUMBERS) | set(COLOURS) | set(CONTEXTS)
    words |= {w for name in OBJECT_CLASSES for w in (name, plural(name), with_article(name))}
    lines = [f"{PREFIX}{form.format(a='a', noun='cow')}{YES_OR_NO}{SUFFIX} Yes. No." for form in EXISTENCE]
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

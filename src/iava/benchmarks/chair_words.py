"""CHAIR's words: which of COCO's 80 classes a caption names.

The table of synonyms and kinds ("puppy" is a dog) is this project's own, written from the paper's definition, and so
are the rules that turn plurals into singulars. `read_synonyms` and `iava.benchmarks.nltk_words.lemmas` take those of
the script that the papers use. With both, the classes that a caption names equal that script's.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iava.errors import IavaError
from iava.jsonfiles import read_text
from iava.words import singular, tokens

Lemmas = Callable[[str], list[str]]
"""A caption -> its words, each in its basic form."""

_CLASSES = """
person: man woman boy girl child kid baby toddler infant adult teenager teen guy lady gentleman male female people
    mother father mom dad parent sister brother grandmother grandfather grandchild bride groom player pitcher
    umpire athlete skier snowboarder skateboarder skater surfer swimmer biker bicyclist cyclist motorcyclist
    rider driver pedestrian walker hiker camper passenger traveler tourist worker coworker chef baker waiter
    waitress doctor nurse student teacher policeman policewoman cop officer soldier serviceman firefighter fireman
    cowboy hunter fisherman farmer shopper buyer customer vendor villager foreigner politician patient drinker thief
bicycle: bike unicycle tricycle trike minibike
car: automobile sedan coupe hatchback suv van minivan jeep cab taxi taxicab limo limousine
motorcycle: motorbike scooter moped | motor bike, motor cycle
airplane: plane aeroplane aircraft jet jetliner airliner airbus biplane monoplane seaplane | air plane
bus: minibus trolley
train: locomotive tramway tram caboose
truck: lorry pickup firetruck hauler
boat: ship sailboat motorboat speedboat powerboat rowboat tugboat lifeboat houseboat paddleboat steamboat riverboat
    ferryboat canoe kayak dinghy skiff yacht catamaran pontoon ferry barge schooner trawler freighter liner vessel
    watercraft battleship steamship sailboard
traffic light: stoplight streetlight | street light, traffic signal, stop light
fire hydrant: hydrant
stop sign:
parking meter:
bench: pew
bird: waterfowl fowl seabird shorebird waterbird songbird bluebird blackbird cowbird hummingbird duck mallard goose
    gosling swan gull seagull pelican heron egret flamingo stork cormorant loon puffin osprey falcon hawk eagle
    owl buzzard vulture condor crow raven magpie pigeon dove sparrow robin finch chickadee warbler oriole woodpecker
    kingfisher bluejay sandpiper willet quail pheasant turkey rooster hen peacock peafowl ostrich emu parrot
    parakeet macaw cockatoo cockatiel lorikeet penguin
cat: kitten kitty feline tabby
dog: puppy pup doggy doggie canine mutt hound terrier bulldog pitbull pug poodle spaniel cocker retriever labrador
    collie sheepdog corgi beagle dachshund chihuahua schnauzer rottweiler doberman weimaraner greyhound whippet husky
    dalmatian
horse: pony foal colt mare stallion racehorse mustang bronco bronc palomino clydesdale equine
sheep: lamb ewe ram goat
cow: cattle calf bull ox oxen heifer holstein buffalo bison zebu
elephant:
bear: panda
zebra:
giraffe:
backpack: knapsack rucksack
umbrella: parasol
handbag: purse wallet briefcase
tie: necktie bow | bow tie
suitcase: luggage | suit case
frisbee:
skis: ski
snowboard:
sports ball: ball
kite:
baseball bat:
baseball glove:
skateboard:
surfboard: longboard shortboard skimboard wakeboard
tennis racket: racket racquet
bottle:
wine glass:
cup:
fork:
knife: pocketknife
spoon:
bowl: container
banana:
apple:
sandwich: burger hamburger cheeseburger sub
orange:
broccoli:
carrot:
hot dog: hotdog
pizza:
donut: doughnut bagel
cake: cheesecake cupcake shortcake coffeecake pancake
chair: seat stool armchair
couch: sofa loveseat settee futon recliner chesterfield
potted plant: houseplant
bed:
dining table: table desk
toilet: urinal commode lavatory potty
tv: television monitor
laptop: computer notebook netbook macbook | laptop computer
mouse:
remote:
keyboard:
cell phone: phone cellphone telephone smartphone iphone | mobile phone
microwave:
oven: stove stovetop
toaster:
sink:
refrigerator: fridge freezer
book:
clock:
vase:
scissors:
teddy bear: teddybear
hair drier: hairdryer hairdrier | hair dryer
toothbrush:
"""
_BEFORE_ANIMALS = ("baby", "adult")
"""Words before an animal that are no objects of their own: a baby elephant is no person."""
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
_VEHICLES = ("jet", "train")
_NOTHING = ("home plate", "train track")
"""Pairs of which neither word may count on its own."""
_WORD_PAIRS = (
    {pair: pair for pair in _NOTHING}
    | {f"{before} {animal}": animal for before in _BEFORE_ANIMALS for animal in _ANIMALS}
    | {f"passenger {vehicle}": vehicle for vehicle in _VEHICLES}
    | {"toilet seat": "toilet", "wine glas": "wine glass"}
)


@dataclass(frozen=True)
class Vocabulary:
    """The words of the classes.

    Args:
        classes: a word, or a pair of words -> its class.
        pairs: two words that stand together -> the word or pair that counts in their place.
    """

    classes: Mapping[str, str]
    pairs: Mapping[str, str]

    def class_of(self, name: str) -> str | None:
        """The class that a class name, synonym or kind belongs to; None if there is none."""
        return self.classes.get(name.lower())

    def mentions(self, words: list[str]) -> list[str]:
        """The classes that a caption names, in its order, as often as it names them.

        Args:
            words: of the caption, each in its basic form.
        """
        left, found = list(words), []
        while left:
            pair = " ".join(left[:2])
            found.append(self.pairs.get(pair, left[0]))
            del left[: 2 if pair in self.pairs else 1]
        if "toilet" in found:
            # The seat of the toilet is no chair.
            found = [word for word in found if word != "seat"]
        return [self.classes[word] for word in found if word in self.classes]

    def lemmas(self, caption: str) -> list[str]:
        """A caption's words. A plural becomes the singular that the vocabulary has."""
        return [singular(token, self._words) for token in tokens(caption)]

    @property
    def _words(self) -> frozenset[str]:
        return _words_of(tuple(self.classes), tuple(self.pairs))


@cache
def _words_of(classes: tuple[str, ...], pairs: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for name in (*classes, *pairs) for word in name.split())


@cache
def own_vocabulary() -> Vocabulary:
    """This project's table."""
    classes: dict[str, str] = {}
    pairs = dict(_WORD_PAIRS)
    for entry in re.sub(r"\n\s+", " ", _CLASSES.strip()).split("\n"):
        name, _, others = entry.partition(":")
        words, _, doubles = others.partition("|")
        double = [name] if " " in name else []
        double += [pair.strip() for pair in doubles.split(",") if pair.strip()]
        classes |= dict.fromkeys([name, *words.split(), *double], name)
        pairs |= {pair: pair for pair in double}
    return Vocabulary(classes, pairs)


def read_synonyms(path: Path) -> Vocabulary:
    """Reads a list of synonyms in the format of the papers' script: a class a line, its name first, ", " between words.

    Args:
        path: the list, or the script itself (OPERA's chair.py), which holds the list as `synonyms_txt`.

    Raises:
        IavaError: if the file cannot be read or holds no such list.
    """
    text = read_text(path)
    inside = re.search(r"synonyms_txt\s*=\s*('''|\"\"\")(.*?)\1", text, re.DOTALL)
    # Entries are split as the script does it: one with two blanks before it never matches a caption.
    rows = [line.strip().split(", ") for line in (inside[2] if inside else text).splitlines() if line.strip()]
    if len(rows) < 2 or any(len(name.split()) > 3 for row in rows for name in row):
        raise IavaError(f"{path} is no list of synonyms: it must have a class a line, such as: dog, puppy, hound")
    classes = {name: row[0] for row in rows for name in row}
    doubles = {name.strip() for name in classes if len(name.split()) == 2}
    return Vocabulary(classes, {pair: pair for pair in doubles} | _WORD_PAIRS)

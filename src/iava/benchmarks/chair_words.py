"""CHAIR's words: which of COCO's 80 classes a caption names.

The table of synonyms and kinds ("puppy" is a dog) is this project's own, written from the paper's definition. It
differs from the paper's table in a few dozen words ("pedestrian" and "waitress" are persons here, "brindle" is no
dog). The rules that turn plurals into singulars differ, too.
"""

import re
from functools import cache

from iava.words import singular, tokens

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
# What stands before another word without being a thing of its own: a baby elephant is no person.
_BEFORE_ANIMALS = ("baby", "adult")
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
_VEHICLES = ("jet", "train")
# Neither half of these may count on its own.
_NOTHING = ("home plate", "train track")


@cache
def _tables() -> tuple[dict[str, str], dict[str, str]]:
    """Words -> classes, and pairs of words -> the word they stand for."""
    classes: dict[str, str] = {}
    pairs = {pair: pair for pair in _NOTHING} | {"toilet seat": "toilet"}
    for entry in re.sub(r"\n\s+", " ", _CLASSES.strip()).split("\n"):
        name, _, others = entry.partition(":")
        words, _, doubles = others.partition("|")
        double = [name] if " " in name else []
        double += [pair.strip() for pair in doubles.split(",") if pair.strip()]
        classes |= dict.fromkeys([name, *words.split(), *double], name)
        pairs |= {pair: pair for pair in double}
    pairs |= {f"{before} {animal}": animal for before in _BEFORE_ANIMALS for animal in _ANIMALS}
    pairs |= {f"passenger {vehicle}": vehicle for vehicle in _VEHICLES}
    return classes, pairs


@cache
def _words() -> frozenset[str]:
    classes, pairs = _tables()
    return frozenset(word for name in (*classes, *pairs) for word in name.split())


def class_of(name: str) -> str | None:
    """The COCO class that a class name, synonym or kind belongs to; None if there is none."""
    return _tables()[0].get(name.lower())


def mentions(caption: str) -> list[str]:
    """The classes that a caption names, in its order, as often as it names them."""
    classes, pairs = _tables()
    left = [singular(token, _words()) for token in tokens(caption)]
    words = []
    while left:
        pair = " ".join(left[:2])
        words.append(pairs.get(pair, left[0]))
        del left[: 2 if pair in pairs else 1]
    if "toilet" in words:
        # The seat of the toilet is no chair.
        words = [word for word in words if word != "seat"]
    return [classes[word] for word in words if word in classes]

"""What captions name, and CHAIR counted by hand."""

import json
import sys

import pytest

from iava.benchmarks import nltk_words
from iava.benchmarks.chair_words import own_vocabulary, read_synonyms
from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
from iava.evaluation.predictions import score_file

OWN = own_vocabulary()


def mentions(caption):
    return OWN.mentions(OWN.lemmas(caption))


def test_there_are_eighty_classes_and_every_word_has_one():
    assert len(set(OWN.classes.values())) == 80
    assert all(OWN.classes[name] == name for name in OWN.classes.values())
    assert (OWN.class_of("Puppy"), OWN.class_of("tv"), OWN.class_of("unicorn")) == ("dog", "tv", None)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man and two women ride horses.", ["person", "person", "horse"]),
        ("Puppies, kittens and geese near buses", ["dog", "cat", "bird", "bus"]),
        ("A hot dog beside a dog", ["hot dog", "dog"]),
        ("a teddy bear", ["teddy bear"]),
        ("teddy, bear", ["bear"]),
        ("Two wine glasses and a glass", ["wine glass"]),
        ("Fire hydrants at a stop sign", ["fire hydrant", "stop sign"]),
        ("a baby elephant with its baby", ["elephant", "person"]),
        ("an adult giraffe", ["giraffe"]),
        ("a passenger train with passengers", ["train", "person"]),
        ("train tracks by the home plate", []),
        ("a toilet with its seat up", ["toilet"]),
        ("a toilet seat, a chair", ["toilet", "chair"]),
        ("a seat", ["chair"]),
        ("a man in a bow tie", ["person", "tie"]),
        ("a dining table", ["dining table"]),
        ("a motor cycle under traffic lights", ["motorcycle", "traffic light"]),
        ("blue skies over skis", ["skis"]),
        ("knives, scissors, a T-shirt, a dog-like thing", ["knife", "scissors"]),
        ("the dog's bowl", ["dog", "bowl"]),
        ("Ein Hund。一只狗", []),
        ("", []),
    ],
)
def test_mentions(caption, expected):
    assert mentions(caption) == expected


def test_chair_counted_by_hand():
    objects = {"1": {"dog", "person"}, "2": {"car"}, "3": {"cat", "bed"}}
    captions = [
        ("1", "A man with a dog, a puppy and a frisbee"),  # 4 mentions, 1 wrong, 2 of 2 objects
        ("2", "Cats on a bed"),  # 2 mentions, 2 wrong, 0 of 1
        ("3", "A cat"),  # 1 mention, 1 of 2
        ("3", "Nothing to see"),  # 0 of 2
    ]
    assert score(captions, objects) == pytest.approx({"n": 4, "chair_i": 3 / 7, "chair_s": 2 / 4, "recall": 3 / 7})
    assert score([], objects) == {"n": 0, "chair_i": 0, "chair_s": 0, "recall": 0}
    assert score([("1", "")], objects)["chair_i"] == 0


def score(captions, objects):
    records = [
        {"category": "caption", "parsed": mentions(text), "truth": sorted(objects[image])} for image, text in captions
    ]
    return benchmark("chair").score(records)


SYNONYMS = """person, man, woman, surfer
motorcycle, scooter,  motor bike, motor cycle
bicycle, bike
tie, bow, bow tie
chair, seat, stool
toilet, commode
wine glass
vase
"""


@pytest.mark.parametrize(
    ("lemmas", "expected"),
    [
        # Lemmas as NLTK gives them: "men" and "vas" (of "vases") are no words of the list.
        ("two men sit near a woman", ["person"]),
        ("two vas and a vase", ["vase"]),
        ("people be seat", ["chair"]),
        ("her hair be tie back", ["tie"]),
        ("a surfer and a pedestrian", ["person"]),
        # The list writes this entry with two blanks: neither the pair nor "bike" counts.
        ("a motor bike and a bike", ["bicycle"]),
        ("a motor cycle", ["motorcycle"]),
        ("a bow tie", ["tie"]),
        ("the seat of the toilet", ["toilet"]),
        ("a toilet seat", ["toilet"]),
        ("a wine glass", ["wine glass"]),
    ],
)
def test_a_list_of_synonyms_is_taken_as_the_papers_script_takes_it(tmp_path, lemmas, expected):
    (tmp_path / "synonyms.txt").write_text(SYNONYMS)
    (tmp_path / "chair.py").write_text(f"import nltk\n\nsynonyms_txt = '''\n{SYNONYMS}'''\n\nclass CHAIR: pass\n")
    listed, inside = (read_synonyms(tmp_path / name) for name in ("synonyms.txt", "chair.py"))
    assert listed == inside
    assert listed.mentions(lemmas.split()) == expected


def test_what_is_no_list_of_synonyms(tmp_path):
    (tmp_path / "notes.txt").write_text("CHAIR needs a list of synonyms and this is none of that kind\n\nAt all.\n")
    with pytest.raises(IavaError, match="is no list of synonyms"):
        benchmark("chair", synonyms=tmp_path / "notes.txt")
    with pytest.raises(IavaError, match="unknown lemmatizer 'spacy': use nltk"):
        benchmark("chair", lemmatizer="spacy")
    with pytest.raises(IavaError, match="--lemmatizer was given, but pope has no use for it: it belongs to chair"):
        benchmark("pope", lemmatizer="nltk")


def has_nltk():
    try:
        nltk_words.lemmas("dogs")
    except IavaError:
        return False
    return True


@pytest.mark.skipif(not has_nltk(), reason="NLTK or its data is missing: see iava.benchmarks.nltk_words")
def test_lemmas_are_those_of_the_papers_script():
    # What OPERA's chair.py makes of these captions.
    assert nltk_words.lemmas("Two men sit near Vases.") == ["two", "men", "sit", "near", "vas", "."]
    assert nltk_words.lemmas("People are seated, skiing") == ["people", "be", "seat", ",", "ski"]
    assert nltk_words.nouns("A woman watches the sea. You can see the beach.") == ["woman", "sea", "beach"]


def test_without_nltk_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    nltk_words._lemmatizer.cache_clear()
    with pytest.raises(
        IavaError, match=r"this needs NLTK: pip install 'iava\[chair\]', then python -m nltk\.downloader"
    ):
        benchmark("chair", lemmatizer="nltk").mentions("a dog")


def test_file_names_and_padded_ids_are_ids(tmp_path):
    instances = tmp_path / "instances.json"
    content = {
        "images": [{"id": number, "file_name": f"COCO_val2014_{number:012d}.jpg"} for number in (42, 300)],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 42, "category_id": 18}],
    }
    instances.write_text(json.dumps(content))
    captions = tmp_path / "captions.jsonl"
    rows = [
        {"image_id": "COCO_val2014_000000000042.jpg", "caption": "A dog"},
        {"image_id": "000300", "caption": "A cat"},
    ]
    captions.write_text("\n".join(json.dumps(row) for row in rows))
    result, _ = score_file("chair", captions, files={"instances": instances})
    assert result == {"benchmark": "chair", "n": 2, "chair_i": 0.5, "chair_s": 0.5, "recall": 1}

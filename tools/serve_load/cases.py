"""Requests, and the answers of the model alone to them."""

import base64
import io
import itertools

METHODS = {
    "greedy": {},
    "iava": {"top_i": 0.5},
    "vcd": {"alpha": 0.5},
    "m3id": {"threshold": 1.0},
}
"""Methods of the mixed load, with settings that change answers."""


def data_uri(image):
    """A picture as a PNG file in a data URI."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def request(name, image, question, max_tokens, options):
    """The body of a request about one image.

    Args:
        name: of the model.
        image: a picture.
        question: the text behind it.
        max_tokens: token limit of the answer.
        options: method and settings, the field `iava`.
    """
    parts = [{"type": "image_url", "image_url": {"url": data_uri(image)}}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": parts}]
    return {"model": name, "messages": messages, "max_tokens": max_tokens, "iava": options}


def mixed_cases(lvlm, name, questions, images):
    """(body, text of `lvlm.chat`) for each method, question and image; token limits differ, and one case in five draws.

    Args:
        lvlm: the model that is served.
        name: its name on the server.
        questions: texts.
        images: pictures.
    """
    found = []
    for number, (question, image, method) in enumerate(itertools.product(questions, images, METHODS)):
        body = request(name, image, question, 3 + number % 9, {"method": method, **METHODS[method]})
        options = {"method": method, "max_new_tokens": body["max_tokens"], **METHODS[method]}
        if number % 5 == 0 and method != "greedy":
            body |= {"temperature": 1.2, "seed": number}
            options |= {"generation": {"do_sample": True, "temperature": 1.2}, "seed": number}
        found.append((body, lvlm.chat(body["messages"], **options).text))
    return found

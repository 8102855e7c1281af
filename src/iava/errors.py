"""The one error class for everything that a user can mend."""


class IavaError(ValueError):
    """Bad input from outside: an argument, a file, a model, a prompt.

    The message is one sentence that says what was wrong, which value, and what would be right.
    The command line prints it as one line and exits with code 2.
    Any other exception is a bug and keeps its traceback.
    """


def quoted(value: object, longest: int = 80) -> str:
    """A value as it stands in a message, cut to a number of characters."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def reason_of(error: BaseException) -> str:
    """The first line of an exception's message, or its class, short and in characters that any terminal prints.

    A first line that ends with a colon takes the next one with it.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = " ".join(part.strip() for part in lines[: 2 if lines[0].endswith(":") else 1])
    if isinstance(error, KeyError):
        line = f"there is no entry {line}"
    return (line if len(line) <= 300 else f"{line[:297]}...").encode("utf-8", "backslashreplace").decode("utf-8")

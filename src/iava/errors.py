"""The one error class for everything that a user can mend."""


class IavaError(ValueError):
    """Bad input from outside: an argument, a file, a model, a prompt.

    The message is one sentence that says what was wrong, which value, and what would be right.
    The command line prints it as one line and exits with code 2.
    Any other exception is a bug and keeps its traceback.
    """

"""Downloads data sets from the Hugging Face Hub into the layout that `load` reads."""

from fnmatch import fnmatch
from pathlib import Path

from iava.benchmarks.benchmark import Benchmark
from iava.errors import IavaError
from iava.files import check_folder

_NETWORK = ("httpx", "httpx2", "httpcore", "requests", "urllib3")
"""Packages whose errors are those of the network. Which of them the Hub's client uses depends on its version."""


def download(asked: Benchmark, folder: Path) -> Path:
    """Downloads a data set, or the rest of it, with a progress bar for each file.

    A download that was stopped continues where it was. The environment variable HF_ENDPOINT names another Hub, HF_TOKEN
    a token for data sets that need one.

    Args:
        folder: gets a folder of the data set's name.

    Returns:
        The data set's folder.

    Raises:
        IavaError: if the Hub has no such data set or does not answer, or the folder cannot be written.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if asked.hub is None:
        raise IavaError(f"{asked.name} is not on the Hub: get {asked.source}, and put it into {folder / asked.name}")
    place = folder / asked.name
    check_folder(place)
    try:
        _download(asked, place)
    except Exception as error:
        if not isinstance(error, HfHubHTTPError | LocalEntryNotFoundError | OSError) and (
            type(error).__module__.split(".")[0] not in _NETWORK
        ):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise IavaError(f"cannot download {asked.name} ({reason}): the same command continues") from None
    return place


def _download(asked: Benchmark, place: Path) -> None:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    assert asked.hub is not None
    for name in asked.hub.names:
        try:
            about = HfApi().dataset_info(name)
        except RepositoryNotFoundError:
            # It may have moved to the next namespace.
            continue
        names = [one.rfilename for one in about.siblings or []]
        wanted = [one for one in names if any(fnmatch(one, pattern) for pattern in asked.hub.files)]
        if not wanted:
            raise IavaError(f"{name} on the Hub has none of the files {', '.join(asked.hub.files)}")
        for one in wanted:
            hf_hub_download(name, one, repo_type="dataset", revision=about.sha, local_dir=place)
        return
    raise IavaError(f"the Hub has no data set {', nor '.join(asked.hub.names)}: is a token needed (HF_TOKEN)?")

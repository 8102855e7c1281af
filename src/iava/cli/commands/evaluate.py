"""The command `iava eval`."""

from functools import partial
from typing import Annotated, Any

import typer

from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.cli.options import (
    Category,
    Data,
    Ids,
    Lemmatizer,
    Limit,
    Model,
    Ocr,
    ParserName,
    Pipeline,
    PresetOption,
    PromptStyle,
    RunFolder,
    SampleSize,
    Seed,
    SpacyModel,
    Split,
    Suffix,
    Synonyms,
    SystemPromptOption,
    Tuned,
    data_folder,
    given_options,
    load_model,
    method_list,
    tuned_files,
    with_options,
)
from iava.cli.settings import METHOD_NAMES, settings_of
from iava.errors import IavaError


@with_options
def evaluate(
    bench: Annotated[
        str,
        typer.Argument(help=f"Benchmark: {', '.join(BENCHMARKS)}.", show_default=False),
    ],
    out: RunFolder,
    model: Model = "pocket",
    data: Data = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Methods to measure, separated by commas: {METHOD_NAMES}. "
            "Default: greedy,apc,bias,iava; without bias for textvqa and chair."
        ),
    ] = None,
    split: Split = None,
    limit: Limit = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Measure only part I of N of the images, written I/N such as 1/4; `iava merge` joins parts."),
    ] = None,
    seed: Seed = 42,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of new tokens per answer. Default: 16; chair: 64; amber: 512. CHAIR depends on "
            "caption length: always report this value; the papers use 512."
        ),
    ] = None,
    parser: ParserName = None,
    preset: PresetOption = None,
    prompt_style: PromptStyle = None,
    suffix: Suffix = None,
    system_prompt: SystemPromptOption = None,
    category: Category = None,
    sample: SampleSize = None,
    ids: Ids = None,
    ocr: Ocr = False,
    synonyms: Synonyms = None,
    lemmatizer: Lemmatizer = None,
    pipeline: Pipeline = None,
    spacy_model: SpacyModel = None,
    tune_images: Annotated[
        int,
        typer.Option(
            help="Number of images to fit the constant bias on: from the pocket split tune, or the first of the data."
        ),
    ] = 100,
    tuned: Tuned = None,
    engine: Annotated[
        str, typer.Option(help=r"local, or ray for several GPUs or machines (requires iava\[ray]).")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(help="Number of Ray workers, one model each. Default: one per GPU, else one per CPU core."),
    ] = None,
    *,
    settings: dict[str, Any],
    loading: dict[str, Any],
) -> None:
    """Measure methods and their controls on a benchmark. An interrupted run resumes."""
    controls = "greedy,apc,bias" if benchmark(bench).asks_yes_no else "greedy,apc"
    names = method_list("methods", methods if methods is not None else controls + ",iava")
    from iava.cli.console import print_results, progress
    from iava.evaluation.plan import Plan
    from iava.evaluation.runner import evaluate as run_locally
    from iava.evaluation.runs import read_runs
    from iava.evaluation.tune import read_tuned
    from iava.files import check_folder
    from iava.reporting.report import write_report

    if engine not in ("local", "ray"):
        raise IavaError(f"unknown engine {engine!r}: use local or ray")
    if workers is not None and engine != "ray":
        raise IavaError("--workers was given, but only --engine ray has workers")
    data = data_folder(bench, data, model)
    run: dict[str, Any] = {"prompt_style": prompt_style, "system_prompt": system_prompt}
    run |= {"max_new_tokens": max_new_tokens, "parser": parser}
    published: dict[str, Any] = {}
    if preset is not None:
        published, run = _preset(preset, names, model, bench, run, loading)
    given = read_tuned(tuned_files(tuned), names, split or "test")
    plan = Plan(
        model,
        settings_of(names, published, given, settings),
        split,
        limit,
        seed,
        tune_images=tune_images,
        benchmark=bench,
        data=data,
        shard=None if shard is None else _shard(shard),
        suffix=suffix,
        category=category,
        sample=sample,
        ids=ids,
        options=given_options(
            ocr=ocr, synonyms=synonyms, lemmatizer=lemmatizer, pipeline=pipeline, spacy_model=spacy_model
        ),
        **run,
    )
    plan.task  # noqa: B018 - missing or broken data is reported before a model is loaded
    check_folder(out)
    if engine == "ray":
        from iava.evaluation.ray_engine import evaluate_with_ray

        run_plan = partial(evaluate_with_ray, plan, out, workers=workers, loaded=partial(load_model, **loading))
    else:
        run_plan = partial(run_locally, load_model(model, **loading), plan, out)
    with progress() as advance:
        results = run_plan(advance=advance)
    page, _, _ = write_report(out / "report.html", read_runs([out]))
    print_results(results, out)
    print(f"report: {page}")


def _preset(
    name: str, methods: list[str], model: str, bench: str, run: dict[str, Any], loading: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a preset sets: method.setting -> value, and what holds for the whole run beside what was given."""
    from iava.evaluation.presets import RUN, preset
    from iava.lvlm.loading import model_type

    found = preset(name, methods, model_type(model, **loading), bench, run)
    settings = {f"{method}.{key}": value for method, own in found.settings.items() for key, value in own.items()}
    chosen = {what: getattr(found, what) if run[what] is None else run[what] for what in RUN}
    return settings, chosen | {"system_prompt": chosen["system_prompt"] or None}


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise IavaError(f"shard is {text!r}: it must be a part and the number of parts, such as 1/4")
    return int(number), int(count)

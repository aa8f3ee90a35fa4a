"""The command that says what the features of a run do: `interpret`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pie_fast.cli.common import (
    DeviceOption,
    ForceOption,
    JsonOption,
    ResumeOption,
    RunBehaviorOption,
    RunCltOption,
    RunModelOption,
    SeedOption,
    at_least,
    command_line,
    print_json,
)
from pie_fast.cli.config import asked
from pie_fast.cli.engines import (
    AddressOption,
    EngineName,
    EngineOption,
    TimeoutOption,
    WorkersOption,
    chosen_engine,
)
from pie_fast.cli.speech import reporter

if TYPE_CHECKING:
    from pie_fast.interpret.by_llm import LlmChoices


class Explainer(StrEnum):
    """What writes the labels."""

    rules = "rules"
    openai = "openai"


#: texts that a language model rates of a feature, where no number is given
N_RATED = 100

#: the strongest contexts that the pass keeps
_MOST_CONTEXTS = 20


def _contexts_kept(n: int) -> int:
    if not 1 <= n <= _MOST_CONTEXTS:
        raise typer.BadParameter(f"{n} is not valid, must be from 1 to {_MOST_CONTEXTS}")
    return n


RunArgument = Annotated[Path, typer.Argument(help="A run of `discover` or `demo --out`.")]
CorpusOption = Annotated[
    list[str] | None,
    typer.Option(
        "--corpus",
        metavar="builtin|NAME|FILE|hf:NAME",
        help="Text beside the behaviour's prompts (repeatable): a text, JSON Lines or parquet "
        "file, a behaviour, all built-in ones, a HuggingFace dataset.",
    ),
]
CorpusTokensOption = Annotated[
    int, typer.Option("--corpus-tokens", callback=at_least(1), help="At most so many of it.")
]
WindowOption = Annotated[
    int, typer.Option("--window", callback=at_least(2), help="Tokens that texts are cut into.")
]
ContextsOption = Annotated[
    int, typer.Option("--contexts", callback=_contexts_kept, help="Kept of each kind, a feature.")
]
SteeredOption = Annotated[
    int,
    typer.Option("--steered", callback=at_least(0), help="Prompts steered for Faithfulness."),
]
ExplainerOption = Annotated[Explainer, typer.Option("--explainer", help="What writes the labels.")]
FadeOption = Annotated[
    bool, typer.Option("--fade", help="Also rate the labels by the language model (costly).")
]
RatedOption = Annotated[
    int | None,
    typer.Option(
        "--rated", callback=at_least(1), help=f"Texts rated a feature, {N_RATED}; FADE: 500."
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option("--base-url", help="Of the OpenAI-compatible endpoint; else OPENAI_BASE_URL."),
]
LlmModelOption = Annotated[
    str | None, typer.Option("--llm-model", help="Its model, for --explainer openai or --fade.")
]
KeyOption = Annotated[
    str, typer.Option("--api-key-env", help="The environment variable that holds its key.")
]
ConcurrencyOption = Annotated[
    int, typer.Option("--concurrency", callback=at_least(1), help="Requests at a time.")
]
PriceOption = Annotated[
    tuple[float, float] | None,
    typer.Option("--price", metavar="IN OUT", help="Of a million tokens, to tell the cost."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--llm-cache", help="Folder of its answers; by default RUN/answers."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Send nothing: tell what would be asked.")
]
LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", help="Labels of others: our JSON Lines, or Neuronpedia's export."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("interpret")(interpret)


def interpret(
    context: typer.Context,
    run: RunArgument,
    corpus: CorpusOption = None,
    corpus_tokens: CorpusTokensOption = 1_000_000,
    window: WindowOption = 128,
    contexts: ContextsOption = 5,
    steered: SteeredOption = 16,
    explainer: ExplainerOption = Explainer.rules,
    fade: FadeOption = False,
    n_rated: RatedOption = None,
    base_url: BaseUrlOption = None,
    llm_model: LlmModelOption = None,
    key_variable: KeyOption = "OPENAI_API_KEY",
    concurrency: ConcurrencyOption = 8,
    price: PriceOption = None,
    cache: CacheOption = None,
    dry_run: DryRunOption = False,
    labels: LabelsOption = None,
    model: RunModelOption = None,
    clt: RunCltOption = None,
    behavior: RunBehaviorOption = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", callback=at_least(1), help="Prompts a pass, of edges.")
    ] = 32,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    engine: EngineOption = EngineName["local"],
    address: AddressOption = None,
    workers: WorkersOption = None,
    timeout: TimeoutOption = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what the features of a run do, and measure how well that describes them."""
    from pie_fast.interpreted_run import InterpretedRun, Text
    from pie_fast.outputs import check_absent

    wanted = InterpretedRun(run)
    if not dry_run:
        check_absent(wanted.result_file, force=force or resume)
    of_llm = {
        "--llm-model": llm_model,
        "--base-url": base_url,
        "--price": price,
        "--llm-cache": cache,
        "--rated": n_rated,
        "--dry-run": dry_run or None,
        "--engine": None if engine is EngineName["local"] else engine.value,
    }
    llm = None
    if explainer is Explainer.openai or fade:
        llm = _llm_choices(
            model=llm_model,
            base_url=base_url,
            key_variable=key_variable,
            concurrency=concurrency,
            price=price,
            cache=cache or run / "answers",
            dry_run=dry_run,
            explain=explainer is Explainer.openai,
            fade=fade,
            n_rated=n_rated or N_RATED,
            n_steered=steered,
        )
    else:
        _refuse_unused(of_llm)
    if labels is not None and explainer is Explainer.openai:
        raise typer.BadParameter("--labels and --explainer openai exclude each other; give one")
    from pie_fast.interpret.circuit import Choices

    with chosen_engine(engine, address, workers, timeout) as where:
        told = wanted.interpret(
            text=Text(tuple(corpus or ()), corpus_tokens, window),
            choices=Choices(
                n_contexts=contexts,
                steered_prompts=0 if dry_run else steered,
                batch_size=batch_size,
                seed=seed,
            ),
            llm=llm,
            labels=labels,
            model=model,
            clt=clt,
            behavior=behavior,
            device=device,
            command=command_line(),
            asked=asked(context),
            resume=resume,
            reporter=reporter(),
            engine=where,
        )
    if as_json:
        print_json(told)
    elif dry_run:
        typer.echo("nothing was sent, nothing written")
    else:
        from pie_fast.cli.interpretation_tables import print_interpretation

        print_interpretation(told, run)


def _refuse_unused(asked: dict[str, Any]) -> None:
    """Options of a language model where none is asked."""
    for name, value in asked.items():
        if value is not None:
            raise typer.BadParameter(f"{name} is for --explainer openai and --fade")


def _llm_choices(*, model: str | None, **of: Any) -> LlmChoices:
    from pie_fast.interpret.by_llm import LlmChoices

    if model is None:
        raise typer.BadParameter("a language model needs --llm-model, its name at the endpoint")
    return LlmChoices(model=model, **of)

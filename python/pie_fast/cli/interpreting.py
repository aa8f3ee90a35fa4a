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
    SeedOption,
    at_least,
    print_json,
)
from pie_fast.cli.speech import reporter

if TYPE_CHECKING:
    from pie_fast.interpret.by_llm import LlmChoices


class Explainer(StrEnum):
    """What writes the labels."""

    rules = "rules"
    openai = "openai"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("interpret")(interpret)


def interpret(
    run: Annotated[Path, typer.Argument(help="A run of `discover` or `demo --out`.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="builtin|NAME|FILE|hf:NAME",
            help="Text beside the behaviour's prompts (repeatable): a text, JSON Lines or parquet "
            "file, a behaviour, all built-in ones, a HuggingFace dataset.",
        ),
    ] = None,
    corpus_tokens: Annotated[
        int, typer.Option("--corpus-tokens", callback=at_least(1), help="At most so many of it.")
    ] = 1_000_000,
    window: Annotated[
        int, typer.Option("--window", callback=at_least(2), help="Tokens that texts are cut into.")
    ] = 128,
    contexts: Annotated[
        int, typer.Option("--contexts", callback=at_least(1), help="Kept of each kind, a feature.")
    ] = 5,
    steered: Annotated[
        int,
        typer.Option("--steered", callback=at_least(0), help="Prompts steered for Faithfulness."),
    ] = 16,
    explainer: Annotated[
        Explainer, typer.Option("--explainer", help="What writes the labels.")
    ] = Explainer.rules,
    fade: Annotated[
        bool, typer.Option("--fade", help="Also rate the labels by the language model (costly).")
    ] = False,
    n_rated: Annotated[
        int,
        typer.Option("--rated", callback=at_least(1), help="Texts rated a feature; FADE: 500."),
    ] = 100,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", help="Of the OpenAI-compatible endpoint; else OPENAI_BASE_URL."),
    ] = None,
    llm_model: Annotated[
        str | None, typer.Option("--llm-model", help="Its model, for --explainer openai or --fade.")
    ] = None,
    key_variable: Annotated[
        str, typer.Option("--api-key-env", help="The environment variable that holds its key.")
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[
        int, typer.Option("--concurrency", callback=at_least(1), help="Requests at a time.")
    ] = 8,
    price: Annotated[
        tuple[float, float] | None,
        typer.Option("--price", metavar="IN OUT", help="Of a million tokens, to tell the cost."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--llm-cache", help="Folder of its answers; by default RUN/answers."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing: tell what would be asked.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Labels of others: our JSON Lines, or Neuronpedia's export."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="By default that of the run.")
    ] = None,
    clt: Annotated[
        str | None, typer.Option("--clt", "-c", help="By default that of the run.")
    ] = None,
    behavior: Annotated[
        str | None, typer.Option("--behavior", "-b", help="By default that of the run.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", callback=at_least(1), help="Prompts a batch.")
    ] = 32,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what the features of a run do, and measure how well that describes them."""
    from pie_fast.interpreted_run import InterpretedRun
    from pie_fast.outputs import check_absent

    wanted = InterpretedRun(run)
    check_absent(wanted.result_file, force=force)
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
            n_rated=n_rated,
        )
    elif dry_run:
        raise typer.BadParameter("--dry-run is for --explainer openai and --fade")
    from pie_fast.interpret.circuit import Choices

    told = wanted.interpret(
        specs=corpus or [],
        max_tokens=corpus_tokens,
        window=window,
        choices=Choices(
            n_contexts=contexts, steered_prompts=steered, batch_size=batch_size, seed=seed
        ),
        llm=llm,
        labels=labels,
        model=model,
        clt=clt,
        behavior=behavior,
        device=device,
        reporter=reporter(),
    )
    if as_json:
        print_json(told)
    else:
        from pie_fast.cli.interpretation_tables import print_interpretation

        print_interpretation(told, run)


def _llm_choices(*, model: str | None, **of: Any) -> LlmChoices:
    from pie_fast.interpret.by_llm import LlmChoices

    if model is None:
        raise typer.BadParameter("a language model needs --llm-model, its name at the endpoint")
    return LlmChoices(model=model, **of)

"""Commands over saved activations: `inspect`, `top`, `merge`, `redundancy`. No torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pie_fast.cli.common import (
    ForceOption,
    JsonOption,
    at_least,
    check_place,
    open_noting,
    print_json,
)
from pie_fast.cli.engines import (
    AddressOption,
    EngineName,
    EngineOption,
    ScratchOption,
    WorkersOption,
    scoring_engine,
)
from pie_fast.cli.speech import reporter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pie_fast.dump import FeatureDump


class DumpRankBy(StrEnum):
    """What a dump can be ranked by; the last three need no attributions."""

    signed = "signed"
    abs = "abs"
    mean_abs = "mean_abs"
    magnitude = "magnitude"
    max = "max"
    count = "count"  # type: ignore[assignment]  # a method of str has this name


DumpArgument = Annotated[str, typer.Argument(help="A feature dump: a folder or a URL.")]
DumpRankByOption = Annotated[DumpRankBy, typer.Option("--rank-by", help="How features are ranked.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", callback=at_least(1), help="By default one per core.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (inspect, top, merge, redundancy):
        app.command(command.__name__)(command)


def inspect(
    dump: DumpArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Check every entry and every shard's sha256.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is inside a dump, and check it."""
    from pie_fast.inspection import inspect_dump

    opened = open_noting(dump)
    if deep:
        with reporter().stage("check") as advance:
            opened.verify(progress=advance)
    with reporter().stage("read") as advance:
        content = inspect_dump(opened, deep=deep, progress=advance)
    if as_json:
        print_json(content)
    else:
        from pie_fast.cli.dump_tables import print_inspection

        print_inspection(content)


def top(
    dump: DumpArgument,
    k: Annotated[
        int, typer.Option("--budget", "-k", callback=at_least(0), help="How many features.")
    ] = 100,
    rank_by: DumpRankByOption = DumpRankBy.mean_abs,
    layer: Annotated[
        list[int] | None,
        typer.Option("--layer", callback=at_least(0), help="Only this layer; may be repeated."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option("--features", help="Only these: L5:42,L7:1, global ids, or a file of them."),
    ] = None,
    min_prompts: Annotated[
        int | None,
        typer.Option(
            "--min-prompts", callback=at_least(0), help="Only features active in so many prompts."
        ),
    ] = None,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="The best of each layer.")] = False,
    threads: ThreadsOption = None,
    engine: EngineOption = EngineName["local"],
    address: AddressOption = None,
    workers: WorkersOption = None,
    scratch: ScratchOption = None,
    as_json: JsonOption = False,
) -> None:
    """The best features of a dump by one score."""
    from pie_fast.cli.given import feature_ids
    from pie_fast.inspection import listed

    with scoring_engine(engine, address, workers, scratch) as chosen:
        opened = open_noting(dump, chosen, scratch)
        only = feature_ids("--features", features, opened.n_layers, opened.n_features)
        with reporter().stage("score") as advance:
            ids, scores = opened.top_k(
                k,
                rank_by.value,
                threads=threads,
                layers=layer,
                features=None if features is None else only,
                min_prompts=min_prompts,
                per_layer=per_layer,
                progress=advance,
            )
    content: dict[str, Any] = {
        "features": listed(ids, scores, opened.n_features),
        "rank_by": rank_by.value,
        "n_prompts": opened.n_prompts,
        "complete": opened.complete,
    }
    if as_json:
        print_json(content)
    else:
        from pie_fast.cli.dump_tables import print_ranking

        print_ranking(content)


def merge(
    dumps: Annotated[
        list[str], typer.Argument(help="Two or more dumps, then the new one; folders or URLs.")
    ],
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Join the prompts of dumps of one capture, in the order given: DUMP... OUT."""
    from pie_fast.dump_merge import merge_dumps
    from pie_fast.errors import PieFastError

    if len(dumps) < 2:
        raise PieFastError(f"merge needs at least one dump and an output folder, got {len(dumps)}")
    with reporter().stage("merge") as advance:
        merged = merge_dumps(dumps[:-1], dumps[-1], force=force, progress=advance)
    print_made(merged, as_json=as_json)


def redundancy(
    dump: DumpArgument,
    clt: Annotated[Path, typer.Option("--clt", "-c", help="Folder of the CLT.")],
    pool: Annotated[
        int, typer.Option("--pool", callback=at_least(1), help="Features compared (M).")
    ] = 200,
    rank_by: DumpRankByOption = DumpRankBy.mean_abs,
    pairs: Annotated[
        int, typer.Option("--pairs", callback=at_least(0), help="Strongest pairs listed.")
    ] = 50,
    weights: Annotated[
        str | None, typer.Option("--weights", help="A weight per target layer: 1,1,0.5.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file for the matrix, as synergies' is.")
    ] = None,
    force: ForceOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which features of a pool write the same: cosines of their decoder rows."""
    from pie_fast.cli.given import numbers
    from pie_fast.decoder import redundancy_of_pool, strongest_pairs
    from pie_fast.inspection import listed

    if out is not None:
        check_place(str(out), force=force)
    weighted = numbers("--weights", weights)
    opened = open_noting(dump)
    ids, scores, matrix = redundancy_of_pool(
        opened, clt, pool, rank_by=rank_by.value, weights=weighted, threads=threads
    )
    if out is not None:
        _save_redundancy(out, opened, ids, matrix)
    content: dict[str, Any] = {
        "features": listed(ids, scores, opened.n_features),
        "pairs": strongest_pairs(ids, matrix, pairs, opened.n_features),
        "rank_by": rank_by.value,
    }
    if as_json:
        print_json(content)
    else:
        from pie_fast.cli.dump_tables import print_redundancy

        print_redundancy(content)


def _save_redundancy(
    out: Path, dump: FeatureDump, ids: NDArray[np.int64], matrix: NDArray[np.float32]
) -> None:
    """A synergy file of which no pair is known yet, with the redundancy of its pool."""
    from pie_fast.synergy_matrix import SynergyMatrix

    order = ids.argsort()
    SynergyMatrix(
        ids[order],
        direction="noising",
        estimator="none",
        form="signed",
        n_prompts=dump.n_prompts,
        redundancy=matrix[order][:, order],
    ).save(out)


def print_made(dump: FeatureDump, *, as_json: bool) -> None:
    """Say what dump a command has made."""
    content = {
        "path": dump.source,
        "n_layers": dump.n_layers,
        "n_features": dump.n_features,
        "n_prompts": dump.n_prompts,
        "n_active": dump.n_active,
    }
    if as_json:
        print_json(content)
    else:
        print(f"{dump.source}: {dump.n_prompts} prompts, {dump.n_active} entries")

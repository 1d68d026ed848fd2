"""``scld sample``, ``augment`` and ``transfer``: a model to synthetic cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scld.cli import options
from scld.cli.group import Examples, suggest
from scld.cli.values import csv_of, labels_of, numbers, table_of_cells, typed
from scld.errors import RequestError

if TYPE_CHECKING:
    from anndata import AnnData

    from scld.generation.cluster import Plan
    from scld.synthesizer import Synthesizer

_FEWEST_TO_EVALUATE = 50  # cells, as scld.evaluate says of fewer


@click.command(
    cls=Examples,
    epilog="""scld sample atlas.scld -n 10000 -o cells.h5ad
    scld sample atlas.scld -n 500 --where cell_type="plasma cell" --guidance 1.5 -o plasma.h5ad
    scld sample atlas.scld -n 500 -w cell_type="plasma cell" -w tissue=liver --unseen -o plasma.h5ad
    scld sample atlas.scld --obs table.csv -o cells.h5ad
    scld sample atlas.scld --obs design.csv --effects effects.csv --mean -o cells.h5ad
    scld sample atlas.scld -n 5000 --depth 0.5 --doublets 0.05 --ambient 0.1 -o cells.h5ad
    scld sample atlas.scld -n 10000000 --workers 4 -o cells.zarr""",
)
@click.argument("checkpoint", type=options.out)
@click.option("-n", "--cells", "n", type=int, help="Number of cells.")
@click.option(
    "-w",
    "--where",
    "wheres",
    multiple=True,
    metavar="LABEL=CATEGORY",
    help="Label to condition on; repeat it for several categories or labels.",
)
@click.option(
    "--obs",
    type=options.out,
    help="CSV with one row per cell and one column per label, instead of -n and --where.",
)
@click.option("--unseen", is_flag=True, help="Allow combinations of labels without training cells.")
@options.designs
@click.option(
    "--workers", type=int, help="Write shards, made by so many processes of a local Dask cluster."
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Write shards, made by the Dask cluster at this address."
)
@click.option("--shard-cells", type=int, help="Write shards of so many cells; 20480 by default.")
@click.option("--dry-run", is_flag=True, help="Print what the shards would take, and stop.")
@options.cells_out
@options.sampling
def sample(
    checkpoint: Path,
    n: int | None,
    wheres: tuple[str, ...],
    obs: Path | None,
    unseen: bool,
    output: Path,
    workers: int | None,
    scheduler: str | None,
    shard_cells: int | None,
    dry_run: bool,
    **given: Any,
) -> None:
    """Generate synthetic cells from a CHECKPOINT.

    Raw counts, with the labels asked for. With --workers, --scheduler or --shard-cells, the output
    is a folder of shards: run the same command again to finish what was stopped.
    """
    from scld.io.write import check_output, write
    from scld.synthesizer import load

    if n is None and obs is None:
        allowed = "say how many cells to generate (-n 1000), or list them with --obs table.csv"
        raise RequestError(f"-n: missing; {allowed}")
    if dry_run or any(option is not None for option in (workers, scheduler, shard_cells)):
        _check_no_design(obs, given)
        plan = _plan(checkpoint, output, n, wheres, unseen, shard_cells, given)
        if dry_run:
            click.echo(plan.expected(1 if workers is None else workers))
            return
        plan.run(workers, scheduler, not given["quiet"])
        click.echo(f"Wrote {n:,} cells in {plan.shards:,} shards: {output}")
        return
    check_output(output, given["overwrite"])
    keywords = options.keywords(given)
    synth = load(checkpoint, device=given["device"])
    where = labels_of(wheres, synth.labels) or None
    design = _design(given, synth)
    conditions = [name for effect in design.get("effects", []) for name in effect.where]
    table = None if obs is None else table_of_cells(obs, synth.schema, conditions)
    cells = synth.stream(n, where=where, obs=table, unseen=unseen, **keywords, **design)
    count = write(cells, output, given["overwrite"])
    _report_written(count, synth, output)
    if count >= _FEWEST_TO_EVALUATE:
        _suggest_evaluation(synth, output)


def _suggest_evaluation(synth: Synthesizer, output: Path) -> None:
    labels = [f"--label={name}" for name in synth.labels]
    layer = options.of_layer(synth.summary.get("layer"))
    real = ("--train", "train.h5ad", "--test", "test.h5ad")
    suggest("scld", "evaluate", str(output), *real, *labels, *layer, "-o", "report.html")
    click.echo("(scld split makes train.h5ad and test.h5ad)")


def _design(given: dict[str, Any], synth: Synthesizer) -> dict[str, Any]:
    """The keywords of `Synthesizer.sample` for designed cells."""
    from scld.generation.artefacts import Artefacts
    from scld.generation.effects import effects_of

    same = ("fixed_depth", "depth", "new_donors", "one_population", "mean")
    design: dict[str, Any] = {name: given[name] for name in same}
    if given["effects"] is not None:
        table = csv_of(given["effects"], "--effects")
        if "log2fc" in table:
            table["log2fc"] = typed(table["log2fc"])
        try:
            design["effects"] = effects_of(table)
        except RequestError as error:
            what = str(error).removeprefix("effects: ")
            raise RequestError(f"--effects: {given['effects']}: {what}") from error
    if given["sets"]:
        design["to"] = labels_of(given["sets"], synth.labels, "--set")
    artefacts = {name: given[name] for name in ("doublets", "ambient", "empty")}
    if any(artefacts.values()):
        design["artefacts"] = Artefacts(**artefacts)
    return design


def _check_no_design(obs: Path | None, given: dict[str, Any]) -> None:
    """Shards hold plain cells."""
    usual: dict[str, Any] = {"effects": None, "fixed_depth": False, "sets": (), "depth": None}
    usual |= {"new_donors": None, "one_population": False, "doublets": 0.0, "ambient": 0.0}
    usual |= {"empty": 0, "mean": False}
    used = ["obs"] * (obs is not None) + [name for name in usual if given[name] != usual[name]]
    if used:
        option = used[0].replace("sets", "set").replace("_", "-")
        raise RequestError(f"--{option}: not possible with shards; use -n and --where")


def _plan(
    checkpoint: Path,
    output: Path,
    n: int | None,
    wheres: tuple[str, ...],
    unseen: bool,
    shard_cells: int | None,
    given: dict[str, Any],
) -> Plan:
    """Shards of these cells."""
    from scld.generation.cluster import Plan
    from scld.generation.fitted import FittedModel, torch_device
    from scld.generation.shards import SHARD_CELLS

    model = FittedModel.load(checkpoint, torch_device(given["device"]))
    where = labels_of(wheres, model.schema.names) or None
    size = SHARD_CELLS if shard_cells is None else shard_cells
    target = (checkpoint, output, given["overwrite"])
    return Plan.of(model, *target, n, where, unseen, size, options.keywords(given))


@click.command(
    cls=Examples,
    epilog="""scld augment atlas.scld atlas.h5ad --label cell_type --to 500 -o balanced.h5ad
    scld augment atlas.scld atlas.h5ad --label cell_type --to balance -o balanced.h5ad
    scld augment atlas.scld atlas.h5ad --label cell_type --to "plasma cell=500" -o more.h5ad""",
)
@click.argument("checkpoint", type=options.out)
@click.argument("source")
@click.option("-l", "--label", required=True, help="Label whose categories are oversampled.")
@click.option(
    "--to",
    "tos",
    multiple=True,
    required=True,
    metavar="NUMBER|balance|CATEGORY=NUMBER",
    help="Cells that each category is to have at least.",
)
@options.layer
@options.cells_out
@options.sampling
def augment(
    checkpoint: Path,
    source: str,
    label: str,
    tos: tuple[str, ...],
    layer: str | None,
    output: Path,
    **given: Any,
) -> None:
    """Oversample rare categories of real cells.

    The cells in SOURCE, then synthetic ones from a fitted CHECKPOINT.
    """
    to = numbers(tos)

    def work(synth: Synthesizer, keywords: dict[str, Any]) -> AnnData:
        return synth.augment(source, label, to, layer=layer, **keywords)

    _edit(checkpoint, output, given, work)


@click.command(
    cls=Examples,
    epilog="""scld transfer atlas.scld control.h5ad --set condition=stim -o stimulated.h5ad
    scld transfer atlas.scld control.h5ad --set condition=stim --strength 0.5 -o stim.h5ad""",
)
@click.argument("checkpoint", type=options.out)
@click.argument("source")
@click.option(
    "--set",
    "sets",
    multiple=True,
    required=True,
    metavar="LABEL=CATEGORY",
    help="Label to change; can be repeated.",
)
@click.option("--strength", type=float, help="0.001 to 1: the larger, the less of a cell is kept.")
@options.layer
@options.cells_out
@options.sampling
def transfer(
    checkpoint: Path,
    source: str,
    sets: tuple[str, ...],
    strength: float | None,
    layer: str | None,
    output: Path,
    **given: Any,
) -> None:
    """Generate real cells under other labels.

    One synthetic cell from a fitted CHECKPOINT for each cell in SOURCE.
    """

    def work(synth: Synthesizer, keywords: dict[str, Any]) -> AnnData:
        to = labels_of(sets, synth.labels, "--set")
        return synth.transfer(source, to, strength=strength, layer=layer, **keywords)

    _edit(checkpoint, output, given, work)


def _edit(
    checkpoint: Path,
    output: Path,
    given: dict[str, Any],
    work: Callable[[Synthesizer, dict[str, Any]], AnnData],
) -> None:
    """Load, work, write."""
    from scld.io.write import check_output, write
    from scld.synthesizer import load

    check_output(output, given["overwrite"])
    keywords = options.keywords(given)
    synth = load(checkpoint, device=given["device"])
    cells = work(synth, keywords)
    _report_written(write([cells], output, given["overwrite"]), synth, output)


def _report_written(count: int, synth: Synthesizer, output: Path) -> None:
    click.echo(f"Wrote {count:,} cells x {len(synth.genes):,} genes: {output}")

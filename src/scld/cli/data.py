"""``scld split`` and ``info``: what to fit and to evaluate with, and what is in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from scld.cli import options
from scld.cli.group import Examples, say, suggest


def _part_out(name: str, what: str) -> Callable[[options.Command], options.Command]:
    """The option for the file of one part of a split."""
    help_text = f".h5ad or .zarr of {what} to write."
    settings: dict[str, Any] = {"type": options.out, "show_default": True, "help": help_text}
    return click.option(f"--{name}-output", default=Path(f"{name}.h5ad"), **settings)


@click.command(
    cls=Examples,
    epilog="""scld split atlas.h5ad --label cell_type
    scld split atlas.h5ad --label cell_type --by donor --test 0.2 --train-output a.h5ad""",
)
@click.argument("source")
@click.option("-l", "--label", required=True, help="obs column of cell types.")
@click.option("--by", help="obs column whose groups are not divided, such as the donor.")
@click.option(
    "--test", type=float, default=0.3, show_default=True, help="Share of the cells to test with."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same split.")
@_part_out("train", "training cells")
@_part_out("test", "test cells")
@options.overwrite
def split(
    source: str,
    label: str,
    by: str | None,
    test: float,
    seed: int,
    train_output: Path,
    test_output: Path,
    overwrite: bool,
) -> None:
    """Split the cells in SOURCE into training and test cells.

    Fit a model to the first; compare its cells with the second.
    """
    from scld.io.counts import layer_of_counts
    from scld.io.split import split as run
    from scld.io.write import check_output, write_whole

    for output in (train_output, test_output):
        check_output(output, overwrite)
    parts = run(source, label, by=by, test=test, seed=seed)
    for output, cells in zip((train_output, test_output), parts, strict=True):
        write_whole(cells, output, overwrite)
        click.echo(f"Wrote {cells.n_obs:,} cells: {output}")
    _suggest_fit(train_output, label, layer_of_counts(parts[0]))


def _suggest_fit(path: Path, label: str, layer: str | None) -> None:
    of_layer = options.of_layer(layer)
    suggest("scld", "fit", str(path), f"--label={label}", *of_layer, "-o", "model.scld")


@click.command(
    cls=Examples,
    epilog="""scld info atlas.scld
    scld info atlas.h5ad
    scld info atlas.h5ad --json""",
)
@click.argument("path", type=options.out)
@options.layer
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(path: Path, layer: str | None, as_json: bool) -> None:
    """Describe a model, or a file of cells.

    Of a CHECKPOINT: labels and their categories, genes, training, version. Of an .h5ad file or
    .zarr store: cells and genes, where raw counts are, which obs columns could be labels, and the
    memory that a fit would take.
    """
    import json

    from scld.describe import as_text, describe, label_and_layer

    about = describe(path, layer)
    if as_json:
        click.echo(json.dumps(about, indent=1))
        return
    say(as_text(about))
    proposed = label_and_layer(about)
    if proposed is not None:
        _suggest_fit(path, *proposed)

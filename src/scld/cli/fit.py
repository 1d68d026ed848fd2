"""``scld fit``: cells to a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from scld.cli import options
from scld.cli.group import Examples, suggest
from scld.config import POST_GUIDANCE, PRESETS, Config
from scld.errors import RequestError


@click.command(
    cls=Examples,
    epilog="""scld fit atlas.h5ad --label cell_type -o atlas.scld
    scld fit atlas.h5ad --label cell_type --label donor --layer counts -o atlas.scld
    scld fit lung.h5ad liver.h5ad --label cell_type --genes intersection -o atlas.scld
    scld fit atlas.h5ad --label cell_type --config settings.toml -o atlas.scld""",
)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "-l", "--label", "labels", multiple=True, help="obs column to condition on; can be repeated."
)
@click.option(
    "-o", "--output", type=options.out, required=True, help="Checkpoint directory to write."
)
@options.layer
@click.option(
    "--preset",
    type=options.Choice(list(PRESETS)),
    default="default",
    show_default=True,
    help="Named settings; quick is a training too short to be good, to try things out.",
)
@click.option(
    "--config",
    "settings",
    type=options.out,
    help="TOML file of settings that differ from those of the preset, as in scld.Config.",
)
@click.option(
    "--genes",
    type=options.Choice(["same", "intersection"]),
    default="same",
    show_default=True,
    help="If the gene names of several sources differ: refuse, or use the genes they share.",
)
@click.option(
    "--stream/--load",
    default=None,
    help="Read the counts from a copy on disk, or hold them in memory; decided by size by default.",
)
@click.option(
    "--devices", type=int, default=1, show_default=True, help="Processes, one per GPU if any."
)
@click.option("--nodes", type=int, default=1, show_default=True, help="Machines (torchrun, SLURM).")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same model.")
@click.option(
    "--post",
    type=options.Choice(POST_GUIDANCE),
    help="select: train the discriminator of post-guidance too, and use it by default.",
)
@options.device
@options.threads
@options.overwrite
@options.quiet
def fit(
    sources: tuple[str, ...],
    labels: tuple[str, ...],
    output: Path,
    layer: str | None,
    preset: str,
    settings: Path | None,
    genes: str,
    stream: bool | None,
    devices: int,
    nodes: int,
    seed: int,
    post: str | None,
    device: str,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Fit a model to the raw counts in SOURCE, or in several of them.

    SOURCE is an .h5ad file or .zarr store. Genes of several are aligned by name.
    An interrupted fit continues where it stopped when the same command is run again.
    """
    from scld.synthesizer import Synthesizer
    from scld.training.processes import is_first_process

    config = _config(preset, settings, post)
    synth = Synthesizer(labels, config=config, seed=seed, device=device)
    cells: dict[str, Any] = {"layer": layer, "genes": genes, "stream": stream}
    cells |= {"devices": devices, "nodes": nodes}
    target: dict[str, Any] = {"checkpoint": output, "overwrite": overwrite}
    started = time.monotonic()
    synth.fit(list(sources), **cells, **target, progress=not quiet)
    if not is_first_process():
        return
    seconds = time.monotonic() - started
    click.echo(f"Fitted {synth.summary['cells']:,} cells in {seconds:.0f} s: {output}")
    where = [f"--where={label.name}={label.categories[0]}" for label in synth.schema.labels[:1]]
    suggest("scld", "sample", str(output), "-n", "1000", *where, "-o", "cells.h5ad")


def _config(preset: str, settings: Path | None, post: str | None) -> Config:
    """The settings of a preset, those of a file in their place, and post-guidance."""
    values = _merged(PRESETS[preset], {} if settings is None else _toml(settings))
    values = _merged(values, {"sampling": {"post": post}} if post else {})
    try:
        return Config.from_dict(values)
    except RequestError as error:
        raise (
            error if settings is None else RequestError(f"--config: {settings}: {error}")
        ) from None


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        example = "write one, for example with the lines [sampling] and steps = 10"
        raise RequestError(f"--config: {path}: no such file; {example}") from None
    except (OSError, ValueError) as error:  # of tomllib and of text that is not UTF-8
        raise RequestError(f"--config: {path}: not a TOML file ({error}); correct it") from None


def _merged(values: Any, others: Any) -> Any:
    """Nested values, with others in their place."""
    if not (isinstance(values, dict) and isinstance(others, dict)):
        return others
    both = {name: _merged(values.get(name), other) for name, other in others.items()}
    return {**values, **both}

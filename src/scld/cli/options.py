"""Options that several commands share, and their types."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from scld.cli.values import guidance
from scld.config import POST_GUIDANCE
from scld.errors import RequestError, listed, nearest

Command = Callable[..., None]


class _Path(click.Path):
    """A path; ~ is the home folder even where the shell leaves it, as in --output=~/cells.h5ad."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(os.fsdecode(super().convert(value, param, ctx))).expanduser()


class Choice(click.Choice[str]):
    """One of a few words, which the shell completes; another one is an error in one line."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = list(map(str, self.choices))
        if value not in known:
            option = param.opts[-1] if param else "choice"
            allowed = f"allowed are {listed(known)}{nearest(str(value), known)}"
            raise RequestError(f"{option}: got {value!r}; {allowed}")
        return str(value)


def _set_threads(ctx: click.Context, param: click.Parameter, value: int | None) -> None:
    """Before numpy and torch are loaded, which then start no more."""
    if value is not None:
        from scld.machine import set_threads

        set_threads(value)


out = _Path()
overwrite = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda",
    shell_complete=lambda ctx, param, start: [
        name for name in ("auto", "cpu", "cuda") if name.startswith(start)
    ],
    help="Where to compute.",
)
threads = click.option(
    "--threads",
    type=int,
    expose_value=False,
    callback=_set_threads,
    help="Most threads to use; by default OMP_NUM_THREADS or all cores. Results are the same.",
)
quiet = click.option("--quiet", is_flag=True, help="No progress on standard error.")
layer = click.option(
    "--layer", help="Layer that holds the raw counts, or raw for adata.raw; X by default."
)
cells_out = click.option(
    "-o", "--output", type=out, required=True, help=".h5ad file or .zarr store to write."
)
reports_out = click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=out,
    help=".html, .json or .csv to write; can be repeated.",
)
_SAMPLING = (
    click.option(
        "-g",
        "--guidance",
        "guidances",
        multiple=True,
        metavar="[LABEL=]WEIGHT",
        help="1 conditions on the labels, more exaggerates them; per label if it is named.",
    ),
    click.option(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar="LOW HIGH",
        help="Noise levels between which the guidance weight holds; all by default.",
    ),
    click.option(
        "--post",
        type=Choice(POST_GUIDANCE),
        help="Post-guidance: select among candidates, or not; as the model was fitted by default.",
    ),
    click.option("--steps", type=int, help="Steps of the solver; the model's own by default."),
    click.option(
        "--seed", type=int, help="Same seed, same cells; by default a new one, kept in the output."
    ),
    device,
    threads,
    overwrite,
    quiet,
)


_DESIGN = (
    click.option(
        "--effects",
        type=out,
        help="CSV of designed effects: columns gene, log2fc, and one per obs column to match.",
    ),
    click.option("--fixed-depth", is_flag=True, help="Effects leave the total of a cell the same."),
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="LABEL=CATEGORY",
        help="The same cells under another label: change it after latent points are generated.",
    ),
    click.option("--depth", type=float, help="Factor of the sequencing depth, such as 0.5."),
    click.option(
        "--new-donors",
        metavar="LABEL",
        help="Label of donors: those in --obs that training did not have are new donors.",
    ),
    click.option(
        "--one-population", is_flag=True, help="No structure within a combination of labels."
    ),
    click.option(
        "--doublets",
        type=float,
        default=0.0,
        show_default=True,
        help="Share of cells that are doublets.",
    ),
    click.option(
        "--ambient",
        type=float,
        default=0.0,
        show_default=True,
        help="Share of ambient counts in a cell.",
    ),
    click.option(
        "--empty", type=int, default=0, show_default=True, help="Number of empty droplets."
    ),
    click.option("--mean", is_flag=True, help="Write expected counts too, as the layer mean."),
)


def of_layer(name: str | None) -> list[str]:
    """The option of a command that is suggested, for counts in this layer."""
    return [] if name is None else [f"--layer={name}"]


def designs(command: Command) -> Command:
    """The options of designed cells; `_design` reads them."""
    for option in reversed(_DESIGN):
        command = option(command)
    return command


def sampling(command: Command) -> Command:
    """The options of all commands that generate cells; `keywords` reads them."""
    for option in reversed(_SAMPLING):
        command = option(command)
    return command


def keywords(given: dict[str, Any]) -> dict[str, Any]:
    """The keywords of `Synthesizer.sample` for these options."""
    same = {name: given[name] for name in ("guidance_interval", "post", "steps", "seed")}
    return {"guidance": guidance(given["guidances"]), "progress": not given["quiet"], **same}

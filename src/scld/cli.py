"""The command line: parse, call, print. Heavy modules load inside the commands, so that --help answers at once."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scld import __version__
from scld.errors import RequestError, SCLDError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scld.schema import Schema
    from scld.synthesizer import Synthesizer


class _Group(click.Group):
    """Turns errors made for a person into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SCLDError, OSError) as error:
            click.echo(f"scld: {' '.join(str(error).split())}", err=True)
            sys.exit(2)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch's own kind of it
                raise
            advice = "use fewer cells or genes, or a larger machine (scld fit says beforehand what it takes)"
            click.echo(f"scld: not enough memory; {advice}; {' '.join(str(error).split())}".rstrip("; "), err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("scld: interrupted; an unfinished fit goes on where it stopped when the same command is run again", err=True)
            sys.exit(130)


class _Examples(click.Command):
    """A command whose help ends with examples as they are typed."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"  {line.strip()}\n")


class _Path(click.Path):
    """A path; ~ is the home folder even where the shell leaves it, as in --output=~/cells.h5ad."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(os.fsdecode(super().convert(value, param, ctx))).expanduser()


_out = _Path()
_overwrite = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
_device = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
_quiet = click.option("--quiet", is_flag=True, help="No progress bars.")
_layer = click.option("--layer", help="Layer that holds the raw counts; X if left out.")
_cells_out = click.option("-o", "--output", type=_out, required=True, help=".h5ad file or .zarr store to write.")
_unseen = click.option("--unseen", is_flag=True, help="Allow combinations of labels that training never saw.")
_TRAINED = ("autoencoder", "denoiser", "critic")
_HOW = (
    click.option("-g", "--guidance", "guidances", multiple=True, metavar="[LABEL=]WEIGHT", help="1 follows the labels, more exaggerates; per label if named."),
    click.option("--guidance-interval", type=float, nargs=2, metavar="LOW HIGH", help="Noise levels that guidance is kept to."),
    click.option("--post", metavar="off|correct|select|both", help="Post-guidance: follow the critics, choose by them, or both; the model's own if left out."),
    click.option("--steps", type=int, help="Solver steps."),
    click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same cells."),
)


def _how(command: Callable[..., None]) -> Callable[..., None]:
    """The options of all that samples."""
    for option in reversed(_HOW):
        command = option(command)
    return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="scld")
def main() -> None:
    """Learn a labelled single-cell RNA-seq count matrix and write new cells: the whole population, or the types you ask for."""


@main.command(
    cls=_Examples,
    epilog="""scld fit atlas.h5ad --label cell_type -o atlas.scld
    scld fit atlas.h5ad --label cell_type --label donor --layer counts -o atlas.scld""",
)
@click.argument("source")
@click.option("-l", "--label", "labels", multiple=True, help="obs column to steer by; may be given several times.")
@click.option("-o", "--output", type=_out, required=True, help="Checkpoint directory to write.")
@click.option("--layer", help="Layer that holds the raw counts; X if left out.")
@click.option("--seed", type=int, default=0, show_default=True)
@_device
@_overwrite
@_quiet
def fit(source: str, labels: tuple[str, ...], output: Path, layer: str | None, seed: int, device: str, overwrite: bool, quiet: bool) -> None:
    """Learn from the raw counts in SOURCE, an .h5ad file or .zarr store.

    Before it starts it says how long it will take, and how much memory. A fit that was interrupted goes on where it stopped when the same
    command is run again.
    """
    from scld.synthesizer import Synthesizer

    synth = Synthesizer(labels, seed=seed, device=device).fit(source, layer=layer, checkpoint=output, overwrite=overwrite, progress=not quiet)
    summary = synth.summary
    click.echo(f"Fitted {summary['cells']:,} cells in {sum(summary[part]['seconds'] for part in _TRAINED):.0f} s of training: {output}")
    where = [f"--where={label.name}={label.categories[0]}" for label in synth.schema.labels[:1]]
    click.echo("Next: " + shlex.join(["scld", "sample", str(output), "-n", "1000", *where, "-o", "cells.h5ad"]))


@main.command(
    cls=_Examples,
    epilog="""scld sample atlas.scld -n 10000 -o cells.h5ad
    scld sample atlas.scld -n 500 --where cell_type="plasma cell" --guidance 1.5 -o plasma.h5ad
    scld sample atlas.scld -n 500 -w cell_type="plasma cell" -w tissue=liver --unseen -o plasma.h5ad
    scld sample atlas.scld -n 500 --post off -o cells.h5ad
    scld sample atlas.scld --obs table.csv -o cells.h5ad""",
)
@click.argument("checkpoint", type=_out)
@click.option("-n", "--cells", "n", type=int, help="Number of cells.")
@click.option("-w", "--where", "wheres", multiple=True, metavar="LABEL=CATEGORY", help="Fix a label; several categories of one label: give it again.")
@click.option("--obs", type=_out, help="CSV with a column a label, one cell a row, in place of -n and --where.")
@_unseen
@_how
@_cells_out
@_device
@_overwrite
@_quiet
def sample(
    checkpoint: Path,
    n: int | None,
    wheres: tuple[str, ...],
    obs: Path | None,
    unseen: bool,
    guidances: tuple[str, ...],
    guidance_interval: tuple[float, float] | None,
    post: str | None,
    steps: int | None,
    seed: int,
    output: Path,
    device: str,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write new cells from a fitted CHECKPOINT: raw counts, labels as asked for."""
    from scld.output import check_output, write
    from scld.synthesizer import load

    check_output(output, overwrite)
    if n is None and obs is None:
        raise RequestError("-n: missing; say how many cells to write (-n 1000), or list them with --obs table.csv")
    guidance = _guidance(guidances)
    synth = load(checkpoint, device=device)
    where, table = _where(wheres, synth.labels) or None, None if obs is None else _table(obs, synth.schema)
    how = {"guidance": guidance, "guidance_interval": guidance_interval, "post": post, "steps": steps, "seed": seed, "progress": not quiet}
    _wrote(write(synth.stream(n, where=where, obs=table, unseen=unseen, **how), output, overwrite), synth, output)  # type: ignore[arg-type]
    label = [f"--label={name}" for name in synth.labels[:1]]
    click.echo("Next: " + shlex.join(["scld", "evaluate", "--train", "train.h5ad", "--test", "test.h5ad", str(output), *label, "-o", "report.html"]))


@main.command(
    cls=_Examples,
    epilog="""scld augment atlas.scld atlas.h5ad --label cell_type --to 500 -o balanced.h5ad
    scld augment atlas.scld atlas.h5ad --label cell_type --to balance -o balanced.h5ad
    scld augment atlas.scld atlas.h5ad --label cell_type --to "plasma cell=500" --to platelet=200 -o more.h5ad""",
)
@click.argument("checkpoint", type=_out)
@click.argument("source")
@click.option("-l", "--label", required=True, help="Label whose categories are topped up.")
@click.option("--to", "tos", multiple=True, required=True, metavar="NUMBER|balance|CATEGORY=NUMBER", help="Cells each category is to have at least.")
@_layer
@_how
@_cells_out
@_device
@_overwrite
@_quiet
def augment(checkpoint: Path, source: str, label: str, tos: tuple[str, ...], layer: str | None, output: Path, overwrite: bool, **how: Any) -> None:
    """Top rare categories of the real cells in SOURCE up with new ones from a fitted CHECKPOINT."""
    to = _numbers(tos)
    _edited(checkpoint, output, overwrite, how, lambda synth, options: synth.augment(source, label, to, layer=layer, **options))


@main.command(
    cls=_Examples,
    epilog="""scld transfer atlas.scld control.h5ad --set condition=stim -o stimulated.h5ad
    scld transfer atlas.scld control.h5ad --set condition=stim --strength 0.5 -o stimulated.h5ad""",
)
@click.argument("checkpoint", type=_out)
@click.argument("source")
@click.option("--set", "sets", multiple=True, required=True, metavar="LABEL=CATEGORY", help="The label to change; may be given several times.")
@click.option("--strength", type=float, help="Above 0, up to 1: how little is kept of a cell.")
@_layer
@_how
@_cells_out
@_device
@_overwrite
@_quiet
def transfer(
    checkpoint: Path, source: str, sets: tuple[str, ...], strength: float | None, layer: str | None, output: Path, overwrite: bool, **how: Any
) -> None:
    """Write the real cells in SOURCE under other labels, by a fitted CHECKPOINT."""
    _edited(
        checkpoint,
        output,
        overwrite,
        how,
        lambda synth, options: synth.transfer(source, _where(sets, synth.labels, "--set"), strength=strength, layer=layer, **options),
    )


@main.command(
    cls=_Examples,
    epilog="""scld interpolate atlas.scld --from cell_type=HSC --to cell_type="plasma cell" -n 200 -o path.h5ad""",
)
@click.argument("checkpoint", type=_out)
@click.option("--from", "starts", multiple=True, required=True, metavar="LABEL=CATEGORY", help="Population to begin at; a label more: give it again.")
@click.option("--to", "stops", multiple=True, required=True, metavar="LABEL=CATEGORY", help="Population to end at.")
@click.option("-n", "--cells", "n", type=int, required=True, help="Number of cells.")
@_unseen
@_how
@_cells_out
@_device
@_overwrite
@_quiet
def interpolate(checkpoint: Path, starts: tuple[str, ...], stops: tuple[str, ...], n: int, unseen: bool, output: Path, overwrite: bool, **how: Any) -> None:
    """Write cells along a path between two populations, by a fitted CHECKPOINT."""

    def between(synth: Synthesizer, options: dict[str, Any]) -> AnnData:
        return synth.interpolate(_where(starts, synth.labels, "--from"), _where(stops, synth.labels, "--to"), n, unseen=unseen, **options)

    _edited(checkpoint, output, overwrite, how, between)


def _edited(checkpoint: Path, output: Path, overwrite: bool, how: dict[str, Any], work: Callable[[Synthesizer, dict[str, Any]], AnnData]) -> None:
    """Load, do the work, write what it gives."""
    from scld.output import check_output, write
    from scld.synthesizer import load

    check_output(output, overwrite)
    same = {name: how[name] for name in ("guidance_interval", "post", "steps", "seed")}
    options = {"guidance": _guidance(how["guidances"]), "progress": not how["quiet"], **same}
    synth = load(checkpoint, device=how["device"])
    _wrote(write([work(synth, options)], output, overwrite), synth, output)


def _wrote(count: int, synth: Synthesizer, output: Path) -> None:
    click.echo(f"Wrote {count:,} cells x {len(synth.genes):,} genes: {output}")


@main.command(
    cls=_Examples,
    epilog="""scld evaluate --train train.h5ad --test test.h5ad cells.h5ad --label cell_type -o report.html
    scld evaluate --train train.h5ad --test test.h5ad ours.h5ad theirs.h5ad --log-normalised theirs --label cell_type -o report.html""",
)
@click.argument("synthetic", nargs=-1, required=True)
@click.option("--train", required=True, help="Real cells that the synthetic ones were learnt from: .h5ad or .zarr, raw counts.")
@click.option("--test", help="Real cells that no model saw; without them part of --train is set aside for the floors.")
@click.option("-l", "--label", help="obs column of cell types; overall figures only if left out.")
@click.option("--donor", help="obs column of donors, for membership inference by donor.")
@click.option("--layer", help="Layer that holds the raw counts; X if left out.")
@click.option("--log-normalised", multiple=True, metavar="NAME", help="A synthetic set (its file name without ending) that is log(1 + counts per 10,000).")
@click.option("--genes", type=click.Choice(["same", "intersection"]), default="same", show_default=True, help="Differing gene names: stop, or score shared.")
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Score the trivial fakes beside.")
@click.option("--max-cells", type=int, default=2000, show_default=True, help="Most cells a side in one comparison.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "--output", "outputs", multiple=True, type=_out, help=".html, .json or .csv to write; may be given several times.")
@_overwrite
@_quiet
def evaluate(
    synthetic: tuple[str, ...],
    train: str,
    test: str | None,
    label: str | None,
    donor: str | None,
    layer: str | None,
    log_normalised: tuple[str, ...],
    genes: Literal["same", "intersection"],
    baselines: bool,
    max_cells: int,
    seed: int,
    outputs: tuple[Path, ...],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score SYNTHETIC cells, from any tool, beside real cells and trivial fakes."""
    from scld.output import check_output
    from scld.report import evaluate as judge

    for output in outputs:
        check_output(output, overwrite, (".html", ".json", ".csv"))
    names = [Path(path).stem for path in synthetic]
    if len(set(names)) < len(names):
        raise RequestError(f"SYNTHETIC: the file names {', '.join(names)} are not different without folder and ending, which tell sets apart: rename one")
    report = judge(
        train,
        test,
        dict(zip(names, synthetic, strict=True)),
        label,
        donor=donor,
        layer=layer,
        log_normalised=log_normalised,
        genes=genes,
        baselines=baselines,
        max_cells=max_cells,
        seed=seed,
        progress=not quiet,
    )
    click.echo(report.summary())
    writers: dict[str, Callable[[Path], Any]] = {".html": report.to_html, ".json": report.to_json, ".csv": partial(report.table.to_csv, index=False)}
    for output in outputs:
        writers[output.suffix](output)
        click.echo(f"Wrote {output}")


@main.command(cls=_Examples, epilog="scld info atlas.scld")
@click.argument("checkpoint", type=_out)
def info(checkpoint: Path) -> None:
    """Say what a CHECKPOINT holds: labels, categories, genes, training."""
    from scld.synthesizer import load

    synth = load(checkpoint, device="cpu")
    click.echo(f"{checkpoint}: {synth.summary['cells']:,} training cells, {len(synth.genes):,} genes ({int((~synth.genes['seen']).sum()):,} never seen)")
    for label in synth.schema.labels:
        cells = synth.schema.category_cells(label.name)
        click.echo(f"  {label.name}: " + ", ".join(f"{category} ({count:,})" for category, count in cells.items()))
    for part in _TRAINED:
        course = synth.summary[part]
        click.echo(f"  {part}: {course['steps']:,} steps in {course['seconds']:.0f} s, best of {len(course['validation'])} rounds: {course['best_round'] + 1}")


@main.command(cls=_Examples, epilog="scld demo\nscld demo --quick -o demo-folder")
@click.option("-o", "--output", type=_out, default=Path("scld-demo"), show_default=True, help="Folder to write.")
@click.option("--quick", is_flag=True, help="A short training on few cells: to see that all works, not how well.")
@_overwrite
@_quiet
def demo(output: Path, quick: bool, overwrite: bool, quiet: bool) -> None:
    """Fit, sample and score on real blood cells that come with the package."""
    from scld.demo import run

    run(output, quick=quick, overwrite=overwrite, progress=not quiet, say=click.echo)


def _where(pairs: tuple[str, ...], labels: list[str], option: str = "--where") -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for pair in pairs:
        name = max((label for label in labels if pair.startswith(f"{label}=")), key=len, default=pair.partition("=")[0])  # a label may hold a =
        category = pair[len(name) + 1 :]
        if not (name and category):
            raise RequestError(f"{option}: got {pair!r}; write LABEL=CATEGORY, for example {option} cell_type='plasma cell'")
        wanted.setdefault(name, []).append(category)
    return wanted


def _numbers(texts: tuple[str, ...]) -> int | str | dict[str, int]:
    """What augment is to reach."""
    if len(texts) == 1 and (texts[0] == "balance" or texts[0].isdecimal()):
        return texts[0] if texts[0] == "balance" else int(texts[0])
    by_category = {name: number for name, _, number in (text.rpartition("=") for text in texts)}
    if "" in by_category or len(by_category) < len(texts) or not all(number.isdecimal() for number in by_category.values()):
        raise RequestError(f"--to: got {' and '.join(texts)}; write one number, balance, or CATEGORY=NUMBER for each category, such as --to platelet=200")
    return {category: int(number) for category, number in by_category.items()}


def _guidance(texts: tuple[str, ...]) -> float | dict[str, float] | None:
    by_label: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            by_label[name] = float(number)
        except ValueError:
            raise RequestError(f"--guidance: got {text!r}; write a number, or LABEL=NUMBER, for example --guidance cell_type=1.5") from None
    if len(by_label) < len(texts) or ("" in by_label and len(by_label) > 1):
        raise RequestError(f"--guidance: got {' and '.join(texts)}; give one weight for all labels, or one for each label")
    return by_label.get("", by_label or None)


def _table(path: Path, schema: Schema) -> pd.DataFrame:
    """Only what is empty is missing: there are categories named NA, and donors named 001."""
    import pandas as pd

    if not path.exists():
        raise RequestError(f"--obs: {path}: no such file; pass a CSV (or .tsv) with a column a label")
    try:
        texts = {label.name: str for label in schema.labels if isinstance(label.categories[0], str)}
        return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=texts, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise RequestError(f"--obs: {path}: not a readable CSV ({str(error).splitlines()[0]}); write one column a label, one row a cell") from error

"""The command line: parse, call, print. Heavy modules load inside the commands."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scld._version import __version__
from scld.config import POST_GUIDANCE, PRESETS, Config
from scld.errors import RequestError, SCLDError, listed, nearest, printable

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scld.evaluation.report import Report
    from scld.generation.cluster import Plan
    from scld.power_analysis.study import PowerStudy
    from scld.privacy_audit.study import PrivacyAudit
    from scld.schema import Schema
    from scld.synthesizer import Synthesizer

Command = Callable[..., None]
_AFTER_INTERRUPTION = {
    "fit": "; an interrupted fit continues when the same command is run again",
    "power": "; with --cache, the same command continues",
}
_CSV_ROWS = {
    "--obs": "one column per label, one row per cell",
    "--effects": "columns gene, log2fc and one per obs column to match, one row per gene",
}


class _Group(click.Group):
    """Prints errors made for the user in one line, with exit code 2, and warnings in one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings(), _terminated_as_interrupted():
                warnings.showwarning = _warn
                return super().invoke(ctx)
        except (SCLDError, OSError) as error:
            _fail(str(error), 2)
        except (MemoryError, RuntimeError) as error:
            # of a failed allocation torch raises a plain RuntimeError; its text is the only sign
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            _fail(f"not enough memory; use fewer cells or genes, or a larger machine; {error}", 2)
        except KeyboardInterrupt:
            _fail(f"interrupted{_AFTER_INTERRUPTION.get(ctx.invoked_subcommand or '', '')}", 130)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, as of a batch system, ends a command as Ctrl-C does: nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _warn(message: Warning | str, *args: Any, **more: Any) -> None:
    _say(f"scld: warning: {' '.join(str(message).split())}", err=True)


def _fail(message: str, code: int) -> None:
    _say(f"scld: {' '.join(message.split())}".rstrip("; "), err=True)
    sys.exit(code)


def _say(text: str, err: bool = False) -> None:
    """Print what may hold names of the user, whose control characters a terminal would obey."""
    click.echo(printable(text), err=err)


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


class _Choice(click.Choice[str]):
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


_out = _Path()
_overwrite = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
_device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda",
    shell_complete=lambda ctx, param, start: [
        name for name in ("auto", "cpu", "cuda") if name.startswith(start)
    ],
    help="Where to compute.",
)
_threads = click.option(
    "--threads",
    type=int,
    expose_value=False,
    callback=_set_threads,
    help="Most threads to use; by default OMP_NUM_THREADS or all cores. Results are the same.",
)
_quiet = click.option("--quiet", is_flag=True, help="No progress on standard error.")
_layer = click.option(
    "--layer", help="Layer that holds the raw counts, or raw for adata.raw; X by default."
)
_cells_out = click.option(
    "-o", "--output", type=_out, required=True, help=".h5ad file or .zarr store to write."
)
_reports_out = click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=_out,
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
        type=_Choice(POST_GUIDANCE),
        help="Post-guidance: select among candidates, or not; as the model was fitted by default.",
    ),
    click.option("--steps", type=int, help="Steps of the solver; the model's own by default."),
    click.option(
        "--seed", type=int, help="Same seed, same cells; by default a new one, kept in the output."
    ),
    _device,
    _threads,
    _overwrite,
    _quiet,
)


_DESIGN = (
    click.option(
        "--effects",
        type=_out,
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


def _designs(command: Command) -> Command:
    """The options of designed cells; `_design` reads them."""
    for option in reversed(_DESIGN):
        command = option(command)
    return command


def _sampling(command: Command) -> Command:
    """The options of all commands that generate cells; `_options` reads them."""
    for option in reversed(_SAMPLING):
        command = option(command)
    return command


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The keywords of `Synthesizer.sample` for these options."""
    same = {name: given[name] for name in ("guidance_interval", "post", "steps", "seed")}
    return {"guidance": _guidance(given["guidances"]), "progress": not given["quiet"], **same}


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="scld")
def main() -> None:
    """Learn a labelled single-cell RNA-seq count matrix and generate synthetic cells.

    The whole population, or only the subpopulations asked for.
    """


@main.command(
    cls=_Examples,
    epilog="""scld fit atlas.h5ad --label cell_type -o atlas.scld
    scld fit atlas.h5ad --label cell_type --label donor --layer counts -o atlas.scld
    scld fit lung.h5ad liver.h5ad --label cell_type --genes intersection -o atlas.scld
    scld fit atlas.h5ad --label cell_type --config settings.toml -o atlas.scld""",
)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "-l", "--label", "labels", multiple=True, help="obs column to condition on; can be repeated."
)
@click.option("-o", "--output", type=_out, required=True, help="Checkpoint directory to write.")
@_layer
@click.option(
    "--preset",
    type=_Choice(list(PRESETS)),
    default="default",
    show_default=True,
    help="Named settings; quick is a training too short to be good, to try things out.",
)
@click.option(
    "--config",
    "settings",
    type=_out,
    help="TOML file of settings that differ from those of the preset, as in scld.Config.",
)
@click.option(
    "--genes",
    type=_Choice(["same", "intersection"]),
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
    type=_Choice(POST_GUIDANCE),
    help="select: train the discriminator of post-guidance too, and use it by default.",
)
@_device
@_threads
@_overwrite
@_quiet
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
    synth.fit(list(sources), **cells, **target, progress=not quiet)
    if not is_first_process():
        return
    seconds = sum(history["seconds"] for _, history in _histories(synth))
    click.echo(f"Fitted {synth.summary['cells']:,} cells in {seconds:.0f} s of training: {output}")
    where = [f"--where={label.name}={label.categories[0]}" for label in synth.schema.labels[:1]]
    _next("scld", "sample", str(output), "-n", "1000", *where, "-o", "cells.h5ad")


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


def _histories(synth: Synthesizer) -> list[tuple[str, dict[str, Any]]]:
    """Name and training history of each network."""
    return [(name, part) for name, part in synth.summary.items() if isinstance(part, dict)]


def _next(*command: str) -> None:
    click.echo("Next: " + shlex.join(command))


@main.command(
    cls=_Examples,
    epilog="""scld sample atlas.scld -n 10000 -o cells.h5ad
    scld sample atlas.scld -n 500 --where cell_type="plasma cell" --guidance 1.5 -o plasma.h5ad
    scld sample atlas.scld -n 500 -w cell_type="plasma cell" -w tissue=liver --unseen -o plasma.h5ad
    scld sample atlas.scld --obs table.csv -o cells.h5ad
    scld sample atlas.scld --obs design.csv --effects effects.csv --mean -o cells.h5ad
    scld sample atlas.scld -n 5000 --depth 0.5 --doublets 0.05 --ambient 0.1 -o cells.h5ad
    scld sample atlas.scld -n 10000000 --workers 4 -o cells.zarr""",
)
@click.argument("checkpoint", type=_out)
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
    type=_out,
    help="CSV with one row per cell and one column per label, instead of -n and --where.",
)
@click.option("--unseen", is_flag=True, help="Allow combinations of labels without training cells.")
@_designs
@click.option(
    "--workers", type=int, help="Write shards, made by so many processes of a local Dask cluster."
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Write shards, made by the Dask cluster at this address."
)
@click.option("--shard-cells", type=int, help="Write shards of so many cells; 20480 by default.")
@click.option("--dry-run", is_flag=True, help="Print what the shards would take, and stop.")
@_cells_out
@_sampling
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
    options = _options(given)
    synth = load(checkpoint, device=given["device"])
    where = _where(wheres, synth.labels) or None
    design = _design(given, synth)
    conditions = [name for effect in design.get("effects", []) for name in effect.where]
    table = None if obs is None else _table(obs, synth.schema, conditions)
    cells = synth.stream(n, where=where, obs=table, unseen=unseen, **options, **design)
    _report_written(write(cells, output, given["overwrite"]), synth, output)
    label = [f"--label={name}" for name in synth.labels[:1]]
    real = ("--train", "train.h5ad", "--test", "test.h5ad")
    _next("scld", "evaluate", *real, str(output), *label, "-o", "report.html")


def _design(given: dict[str, Any], synth: Synthesizer) -> dict[str, Any]:
    """The keywords of `Synthesizer.sample` for designed cells."""
    from scld.generation.artefacts import Artefacts
    from scld.generation.effects import effects_of

    same = ("fixed_depth", "depth", "new_donors", "one_population", "mean")
    design: dict[str, Any] = {name: given[name] for name in same}
    if given["effects"] is not None:
        table = _csv(given["effects"], "--effects")
        if "log2fc" in table:
            table["log2fc"] = _typed(table["log2fc"])
        try:
            design["effects"] = effects_of(table)
        except RequestError as error:
            what = str(error).removeprefix("effects: ")
            raise RequestError(f"--effects: {given['effects']}: {what}") from error
    if given["sets"]:
        design["to"] = _where(given["sets"], synth.labels, "--set")
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
    where = _where(wheres, model.schema.names) or None
    size = SHARD_CELLS if shard_cells is None else shard_cells
    target = (checkpoint, output, given["overwrite"])
    return Plan.of(model, *target, n, where, unseen, size, _options(given))


@main.command(
    cls=_Examples,
    epilog="""scld augment atlas.scld atlas.h5ad --label cell_type --to 500 -o balanced.h5ad
    scld augment atlas.scld atlas.h5ad --label cell_type --to balance -o balanced.h5ad
    scld augment atlas.scld atlas.h5ad --label cell_type --to "plasma cell=500" -o more.h5ad""",
)
@click.argument("checkpoint", type=_out)
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
@_layer
@_cells_out
@_sampling
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
    to = _numbers(tos)

    def work(synth: Synthesizer, options: dict[str, Any]) -> AnnData:
        return synth.augment(source, label, to, layer=layer, **options)

    _edit(checkpoint, output, given, work)


@main.command(
    cls=_Examples,
    epilog="""scld transfer atlas.scld control.h5ad --set condition=stim -o stimulated.h5ad
    scld transfer atlas.scld control.h5ad --set condition=stim --strength 0.5 -o stim.h5ad""",
)
@click.argument("checkpoint", type=_out)
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
@_layer
@_cells_out
@_sampling
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

    def work(synth: Synthesizer, options: dict[str, Any]) -> AnnData:
        to = _where(sets, synth.labels, "--set")
        return synth.transfer(source, to, strength=strength, layer=layer, **options)

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
    options = _options(given)
    synth = load(checkpoint, device=given["device"])
    cells = work(synth, options)
    _report_written(write([cells], output, given["overwrite"]), synth, output)


def _report_written(count: int, synth: Synthesizer, output: Path) -> None:
    click.echo(f"Wrote {count:,} cells x {len(synth.genes):,} genes: {output}")


@main.command(
    cls=_Examples,
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
@click.option(
    "--train-output",
    type=_out,
    default=Path("train.h5ad"),
    show_default=True,
    help=".h5ad or .zarr of training cells to write.",
)
@click.option(
    "--test-output",
    type=_out,
    default=Path("test.h5ad"),
    show_default=True,
    help=".h5ad or .zarr of test cells to write.",
)
@_overwrite
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

    Fit a model to the first; score its cells beside the second.
    """
    from scld.io.split import split as run
    from scld.io.write import check_output, write_whole

    for output in (train_output, test_output):
        check_output(output, overwrite)
    parts = run(source, label, by=by, test=test, seed=seed)
    for output, cells in zip((train_output, test_output), parts, strict=True):
        write_whole(cells, output, overwrite)
        click.echo(f"Wrote {cells.n_obs:,} cells: {output}")
    _next("scld", "fit", str(train_output), f"--label={label}", "-o", "model.scld")


@main.command(
    cls=_Examples,
    epilog="""scld evaluate cells.h5ad --train train.h5ad --test test.h5ad -l cell_type -o page.html
    scld evaluate a.h5ad b.h5ad --train train.h5ad --test test.h5ad --log-normalised b""",
)
@click.argument("synthetic", nargs=-1, required=True)
@click.option(
    "--train", required=True, help="Real cells that the generators were trained on, raw counts."
)
@click.option(
    "--test", help="Real cells that no generator saw; without them part of --train is used."
)
@click.option(
    "-l",
    "--label",
    "labels",
    multiple=True,
    help="obs column of cell types; repeat it for several. Without it: overall metrics only.",
)
@click.option("--donor", help="obs column of donors, for membership inference by donor.")
@_layer
@click.option(
    "--log-normalised",
    multiple=True,
    metavar="NAME",
    help="Dataset (file name without ending) that is log(1 + counts per 10,000).",
)
@click.option(
    "--genes",
    type=_Choice(["same", "intersection"]),
    default="same",
    show_default=True,
    help="If gene names differ: stop, or score the shared genes.",
)
@click.option(
    "--controls/--no-controls", default=True, show_default=True, help="Score negative controls too."
)
@click.option("--full", is_flag=True, help="Print every overall metric too.")
@click.option(
    "--max-cells",
    type=int,
    default=2000,
    show_default=True,
    help="Largest number of cells on each side of a comparison.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same scores.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the scores as JSON in place of the summary."
)
@_reports_out
@_threads
@_overwrite
@_quiet
def evaluate(
    synthetic: tuple[str, ...],
    train: str,
    test: str | None,
    labels: tuple[str, ...],
    donor: str | None,
    layer: str | None,
    log_normalised: tuple[str, ...],
    genes: Literal["same", "intersection"],
    controls: bool,
    full: bool,
    max_cells: int,
    seed: int,
    as_json: bool,
    outputs: tuple[Path, ...],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score SYNTHETIC cells of any tool.

    Beside the real-vs-real baseline and negative controls.
    """
    from scld.evaluation.report import evaluate as run

    _check_reports(outputs, overwrite)
    names = [Path(path).stem for path in synthetic]
    if len(set(names)) < len(names):
        seen = f"the file names {', '.join(names)} are the names of the datasets"
        raise RequestError(f"SYNTHETIC: {seen}, and must differ without folder and ending")
    report = run(
        train,
        test,
        dict(zip(names, synthetic, strict=True)),
        list(labels) or None,
        donor=donor,
        layer=layer,
        log_normalised=log_normalised,
        genes=genes,
        controls=controls,
        max_cells=max_cells,
        seed=seed,
        progress=not quiet,
    )
    if as_json:
        click.echo(report.to_json())
    else:
        _say(report.summary(full=full))
    _write_reports(report, outputs, err=as_json)


@main.command(
    cls=_Examples,
    epilog="""scld power pilot.scld --design design.yaml -o power.html
    scld power pilot.scld --design design.yaml --cache power-cache -o power.html -o power.csv""",
)
@click.argument("checkpoint", type=_out)
@click.option(
    "--design",
    type=_out,
    required=True,
    help=".yaml or .json with the studies to simulate: docs/power.md lists its keys.",
)
@click.option(
    "--cache", type=_out, help="Folder that keeps what was simulated, for a finer grid later."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same results.")
@_reports_out
@_threads
@_overwrite
@_quiet
def power(
    checkpoint: Path,
    design: Path,
    cache: Path | None,
    seed: int,
    outputs: tuple[Path, ...],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Simulate planned studies from the CHECKPOINT of a pilot study.

    Power and false discoveries of differential expression, rare types found, changes of composition
    found, and cost, for each number of donors and cells, depth and size of effect.
    """
    from scld.power_analysis.study import power as run

    _check_reports(outputs, overwrite)
    study = run(checkpoint, design, cache=cache, seed=seed, progress=not quiet)
    _say(study.summary())
    _write_reports(study, outputs)


@main.command(
    cls=_Examples,
    epilog="""scld audit cells.h5ad --donor donor -l cell_type -o audit.html
    scld audit cells.h5ad --donor patient -l cell_type --layer counts -o audit.json -o audit.csv""",
)
@click.argument("source")
@click.option("--donor", default="donor", show_default=True, help="obs column of donors.")
@click.option(
    "-l", "--label", default="cell_type", show_default=True, help="obs column of cell types."
)
@_layer
@click.option(
    "--replicates",
    type=int,
    default=5,
    show_default=True,
    help="Splits of the donors, each with a fit of its own.",
)
@click.option(
    "--cells-per-donor",
    "cells_per_donor",
    type=int,
    multiple=True,
    default=(1, 10, 100),
    show_default=True,
    help="Cells of a donor that an attacker has; can be repeated.",
)
@click.option(
    "--quick", is_flag=True, help="A training too short to be good: to see that everything works."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same results.")
@_reports_out
@_threads
@_overwrite
@_quiet
def audit(
    source: str,
    donor: str,
    label: str,
    layer: str | None,
    replicates: int,
    cells_per_donor: tuple[int, ...],
    quick: bool,
    seed: int,
    outputs: tuple[Path, ...],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Attack synthetic cells: was this donor in training?

    Fits models on some of the donors in SOURCE, which has five or more, and shows how well attacks
    distinguish these donors from others, beside copies of training cells and cells of other donors.
    """
    from scld.privacy_audit.study import audit as run

    _check_reports(outputs, overwrite)
    found = run(
        source,
        donor,
        label,
        config=Config.preset("quick" if quick else "default"),
        layer=layer,
        replicates=replicates,
        cells_per_donor=cells_per_donor,
        seed=seed,
        progress=not quiet,
    )
    _say(found.summary())
    _write_reports(found, outputs)


def _check_reports(outputs: tuple[Path, ...], overwrite: bool) -> None:
    from scld.io.write import check_output

    for output in outputs:
        check_output(output, overwrite, (".html", ".json", ".csv"))


def _write_reports(
    report: Report | PowerStudy | PrivacyAudit, outputs: tuple[Path, ...], err: bool = False
) -> None:
    writers: dict[str, Callable[[Path], Any]] = {
        ".html": report.to_html,
        ".json": report.to_json,
        ".csv": report.to_csv,
    }
    for output in outputs:
        writers[output.suffix](output)
        click.echo(f"Wrote {output}", err=err)


@main.command(
    cls=_Examples,
    epilog="""scld info atlas.scld
    scld info atlas.h5ad
    scld info atlas.h5ad --json""",
)
@click.argument("path", type=_out)
@_layer
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(path: Path, layer: str | None, as_json: bool) -> None:
    """Describe a model, or a file of cells.

    Of a CHECKPOINT: labels and their categories, genes, training, version. Of an .h5ad file or
    .zarr store: cells and genes, where raw counts are, which obs columns could be labels, and the
    memory that a fit would take.
    """
    import json

    from scld.describe import as_text, describe

    about = describe(path, layer)
    if as_json:
        click.echo(json.dumps(about, indent=1))
    else:
        _say(as_text(about))


@main.command(cls=_Examples, epilog="scld demo\nscld demo --quick -o demo-folder")
@click.option(
    "-o",
    "--output",
    type=_out,
    default=Path("scld-demo"),
    show_default=True,
    help="Folder to write.",
)
@click.option(
    "--quick", is_flag=True, help="A training too short to be good: to see that everything works."
)
@_overwrite
@_quiet
def demo(output: Path, quick: bool, overwrite: bool, quiet: bool) -> None:
    """Run everything on cells that come with scld.

    Fit, sample and evaluate on real blood cells.
    """
    from scld.demo import run

    run(output, quick=quick, overwrite=overwrite, progress=not quiet, say=click.echo)


def _where(
    pairs: tuple[str, ...], labels: list[str], option: str = "--where"
) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for pair in pairs:
        known = [label for label in labels if pair.startswith(f"{label}=")]  # a label may hold a =
        name = max(known, key=len, default=pair.partition("=")[0])
        category = pair[len(name) + 1 :]
        if not (name and category):
            example = f"{option} cell_type='plasma cell'"
            raise RequestError(f"{option}: got {pair!r}; write LABEL=CATEGORY, such as {example}")
        wanted.setdefault(name, []).append(category)
    return wanted


def _numbers(texts: tuple[str, ...]) -> int | str | dict[str, int]:
    """The ``to`` of `Synthesizer.augment`."""
    if texts == ("balance",):
        return "balance"
    if len(texts) == 1 and texts[0].isdecimal():
        return int(texts[0])
    pairs = [text.rpartition("=") for text in texts]
    numbers = {name: number for name, _, number in pairs}
    valid = "" not in numbers and all(number.isdecimal() for number in numbers.values())
    if not valid or len(numbers) < len(texts):
        allowed = "write one number, balance, or CATEGORY=NUMBER for each category"
        got = " and ".join(texts)
        raise RequestError(f"--to: got {got}; {allowed}, such as --to platelet=200")
    return {name: int(number) for name, number in numbers.items()}


def _guidance(texts: tuple[str, ...]) -> float | dict[str, float] | None:
    by_label: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            by_label[name] = float(number)
        except ValueError:
            allowed = "write a number, or LABEL=NUMBER, such as --guidance cell_type=1.5"
            raise RequestError(f"--guidance: got {text!r}; {allowed}") from None
    if len(by_label) < len(texts) or ("" in by_label and len(by_label) > 1):
        allowed = "give one weight for all labels, or one for each label"
        raise RequestError(f"--guidance: got {' and '.join(texts)}; {allowed}")
    return by_label.get("", by_label or None)


def _table(path: Path, schema: Schema, conditions: Iterable[str]) -> pd.DataFrame:
    """Columns of text labels, and those that effects are to match, stay text."""
    texts = {label.name for label in schema.labels if isinstance(label.categories[0], str)}
    texts |= {name for name in conditions if name not in schema.names}
    table = _csv(path, "--obs")
    for name in set(table) - texts:
        table[name] = _typed(table[name])
    return table


def _typed(column: pd.Series) -> pd.Series:
    """A column of text as numbers or booleans; as it is if it is neither, or has leading zeros."""
    import pandas as pd

    known = column.dropna()
    if known.str.fullmatch("True|False").all() and len(known):
        return column.map({"True": True, "False": False})
    if known.str.fullmatch(r"[+-]?0\d+.*").any():
        return column
    try:
        numbers: pd.Series = pd.to_numeric(column)
        return numbers
    except (ValueError, TypeError):
        return column


def _csv(path: Path, option: str) -> pd.DataFrame:
    """All as text. Only empty fields are missing: categories may be named NA, donors 001."""
    import pandas as pd

    allowed = _CSV_ROWS[option]
    if not path.exists():
        raise RequestError(f"{option}: {path}: no such file; pass a CSV (or .tsv) with {allowed}")
    separator = "\t" if path.suffix == ".tsv" else ","
    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
    try:
        table: pd.DataFrame = pd.read_csv(path, sep=separator, dtype=str, **options)
    except (OSError, ValueError) as error:
        seen = f"not a readable CSV ({str(error).splitlines()[0]})"
        raise RequestError(f"{option}: {path}: {seen}; write {allowed}") from error
    if table.shape[1] and str(table.columns[0]).startswith("Unnamed: 0"):  # names of rows
        table = table.set_index(table.columns[0]).rename_axis(None)
    return table

"""``scld evaluate``, ``power`` and ``audit``: results as a summary, pages and tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scld.cli import options
from scld.cli.group import Examples, say
from scld.config import Config
from scld.errors import RequestError

if TYPE_CHECKING:
    from scld.evaluation.report import Report
    from scld.power_analysis.study import PowerStudy
    from scld.privacy_audit.study import PrivacyAudit


@click.command(
    cls=Examples,
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
@options.layer
@click.option(
    "--log-normalised",
    multiple=True,
    metavar="NAME",
    help="Dataset (file name without ending) that is log(1 + counts per 10,000).",
)
@click.option(
    "--genes",
    type=options.Choice(["same", "intersection"]),
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
@options.reports_out
@options.threads
@options.overwrite
@options.quiet
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
        say(report.summary(full=full))
    _write_reports(report, outputs, err=as_json)


@click.command(
    cls=Examples,
    epilog="""scld power pilot.scld --design design.yaml -o power.html
    scld power pilot.scld --design design.yaml --cache power-cache -o power.html -o power.csv""",
)
@click.argument("checkpoint", type=options.out)
@click.option(
    "--design",
    type=options.out,
    required=True,
    help=".yaml or .json with the studies to simulate: docs/power.md lists its keys.",
)
@click.option(
    "--cache",
    type=options.out,
    help="Folder that keeps what was simulated, for a finer grid later.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same results.")
@options.reports_out
@options.threads
@options.overwrite
@options.quiet
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
    say(study.summary())
    _write_reports(study, outputs)


@click.command(
    cls=Examples,
    epilog="""scld audit cells.h5ad --donor donor -l cell_type -o audit.html
    scld audit cells.h5ad --donor patient -l cell_type --layer counts -o audit.json -o audit.csv""",
)
@click.argument("source")
@click.option("--donor", default="donor", show_default=True, help="obs column of donors.")
@click.option(
    "-l", "--label", default="cell_type", show_default=True, help="obs column of cell types."
)
@options.layer
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
@options.reports_out
@options.threads
@options.overwrite
@options.quiet
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
    say(found.summary())
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

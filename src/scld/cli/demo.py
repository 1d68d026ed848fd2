"""``scld demo``: the main job on the cells that come with scld."""

from __future__ import annotations

from pathlib import Path

import click

from scld.cli import options
from scld.cli.group import Examples


@click.command(cls=Examples, epilog="scld demo\nscld demo --quick -o demo-folder")
@click.option(
    "-o",
    "--output",
    type=options.out,
    default=Path("scld-demo"),
    show_default=True,
    help="Folder to write.",
)
@click.option(
    "--quick", is_flag=True, help="A training too short to be good: to see that everything works."
)
@options.overwrite
@options.quiet
def demo(output: Path, quick: bool, overwrite: bool, quiet: bool) -> None:
    """Run everything on cells that come with scld.

    Fit, sample and evaluate on real blood cells.
    """
    from scld.demo import run

    run(output, quick=quick, overwrite=overwrite, progress=not quiet, say=click.echo)

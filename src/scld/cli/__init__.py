"""The command line: parse, call, print. Heavy modules load inside the commands."""

from __future__ import annotations

import click

from scld._version import __version__
from scld.cli.data import info, split
from scld.cli.demo import demo
from scld.cli.evaluate import audit, evaluate, power
from scld.cli.fit import fit
from scld.cli.group import Group
from scld.cli.sample import augment, sample, transfer


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="scld")
def main() -> None:
    """Learn a labelled single-cell RNA-seq count matrix and generate synthetic cells.

    The whole population, or only the subpopulations asked for.
    """


for _command in (split, info, fit, sample, augment, transfer, evaluate, power, audit, demo):
    main.add_command(_command)

"""Pictures of how synthetic cells compare with real ones, as PNGs.

    python benchmarks/pictures.py --data-dir DIR --output pictures [--sets teaseq_pbmc] [--models models]

Each set is split 70/30 within type (the first of `--seeds`), and SCLD is fitted on the training part, or taken from `--models` where
`quality.py --models` left it. Written for each set, real cells being test cells:

    SET-map.png         one UMAP of real and synthetic cells, together and by type
    SET-types.png       the same map, one panel a type: real and synthetic cells of that type
    SET-targeted.png    cells asked for type by type, on the map of the real ones (a visualisation as in the paper's)
    SET-markers.png     dot plots of marker genes, real and synthetic side by side
    SET-KEY.png         the other pictures of an evaluation: sizes, by_type, roc, nearest, genes, together
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from common import LABEL, LABELS, arguments, begin, fitted, judged
from matplotlib.figure import Figure

import scld
from scld import page, plots

OURS, TARGETED = "SCLD", "targeted"
EACH = 150  # cells asked for of a type
MOST_MAPPED = 1500
Points = dict[str, tuple[np.ndarray, str]]  # what they are -> places, colour


def panels(real: np.ndarray, shown: dict[str, Points]) -> Figure:
    """The real map in grey, once a type, with that type's cells on it."""
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 3 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (kind, sets) in zip(axes, shown.items(), strict=False):
        axis.scatter(*real.T, c=plots.GREY, s=3, lw=0, alpha=0.4, label="all real cells")
        for what, (places, colour) in sets.items():
            axis.scatter(*places.T, c=colour, s=6, lw=0, alpha=0.7, label=what)
        axis.set_title(kind, fontsize=10, loc="left")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_alpha(0.2)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False, markerscale=2)
    return figure


def by_type(places: plots.Places, name: str, types: Sequence[str], with_real: bool) -> Figure:
    """Cells of one set, type by type, alone or with the real ones of that type."""
    (real, real_codes), (made, made_codes) = places["real"], places[name]
    shown: dict[str, Points] = {}
    for code in np.unique(made_codes):
        ours: Points = {"synthetic": (made[made_codes == code], plots.FAKE)}
        shown[types[code]] = ({"real": (real[real_codes == code], plots.REAL)} if with_real else {}) | ours
    return panels(real, shown)


def draw(name: str, given: argparse.Namespace) -> None:
    """All pictures of a set."""
    seed, labels = given.seeds[0], LABELS.get(name, [LABEL])
    train, test = scld.data.split(scld.data.read(given.data_dir / f"{name}.h5ad"), LABEL, seed=seed)
    synth = fitted(train, labels, seed, given, name)
    cells = synth.sample(obs=test.obs[labels], seed=seed, progress=False)
    report = scld.evaluate(train, test, {OURS: cells}, LABEL, baselines=False, halvings=1, seed=seed, progress=False)
    asked = pd.DataFrame({LABEL: np.repeat(report.types, EACH)}).set_index(np.arange(EACH * len(report.types)).astype(str))
    views = {OURS: report.judgement.shown[OURS]}
    views[TARGETED] = report.judgement.reference.view(judged(synth.sample(obs=asked, seed=seed + 1, progress=False), report.types))
    places = plots.embed(report.judgement.shown["real"], views, MOST_MAPPED, seed)
    figures = {key: figure for key, _, figure in page.drawn(report, OURS, places)}
    figures["types"] = by_type(places, OURS, report.types, with_real=True)
    figures["targeted"] = by_type(places, TARGETED, report.types, with_real=False)
    for key, figure in figures.items():
        path = Path(given.output) / f"{name}-{key}.png"
        figure.savefig(path, dpi=150)
        print(path, flush=True)


def main() -> None:
    parser = arguments(__doc__, ["teaseq_pbmc"], seeds=[0])
    parser.add_argument("--output", type=Path, required=True)
    given = begin(parser)
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        draw(name, given)


if __name__ == "__main__":
    main()

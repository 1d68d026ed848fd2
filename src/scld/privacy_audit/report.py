"""The HTML page of an audit: AUC against the number of cells, the table, notes and methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from scld.evaluation.html import filled
from scld.evaluation.plots import style
from scld.privacy_audit import results
from scld.privacy_audit.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TITLE = "AUC of attacks on donors"
CAPTION = (
    "0.5 (dashed): an attacker learns nothing; 1: every training donor is found. The likelihood "
    "needs the model, so it has no controls. Bands: 95% intervals over splits of the donors."
)
COLOURS = {
    results.SYNTHETIC: style.SYNTHETIC,
    results.COPIES: style.TYPE_COLOURS[5],
    results.SAME: style.REAL,
    results.OTHER: style.GREY,
}


def render(audit: Results) -> str:
    """The whole page."""
    from markupsafe import Markup

    columns, rows = audit.shown()
    return filled(
        "scld.privacy_audit",
        "audit.html",
        audit=audit,
        columns=columns,
        rows=rows,
        released=results.RELEASED,
        attacks=results.ATTACKS,
        plot=Markup(style.svg(curves(audit), f"{TITLE}. {CAPTION}", "audit")),
        title=TITLE,
        caption=CAPTION,
    )


def curves(audit: Results) -> Figure:
    """One panel per attack, one curve per kind of released cells."""
    rows = audit.values(metric=results.AUC)
    attacks = list(rows["attack"].unique())
    figure, panels = style.subplots(len(attacks), 2.6 * len(attacks) + 1.6, 2.8, sharey=True)
    for panel, attack in zip(panels, attacks, strict=True):
        some = rows[rows["attack"] == attack].dropna(subset=["value"])
        for name, colour in COLOURS.items():
            curve = some[some["released"] == name]
            _draw(panel, curve, name, colour)
        panel.axhline(0.5, color=style.GREY, linewidth=1, linestyle="--")
        panel.set_ylim(-0.03, 1.03)
        style.set_labels(panel, "cells per donor", "" if attack != attacks[0] else "AUC", attack)
        _set_scale(panel, sorted(set(rows["cells_per_donor"])))
    handles, labels = panels[0].get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "fontsize": 8}
    figure.legend(handles, labels, labelcolor=style.INK, **place)
    return figure


def _draw(panel: Axes, curve: pd.DataFrame, name: str, colour: str) -> None:
    if curve.empty:
        return
    at, value = curve["cells_per_donor"].to_numpy(float), curve["value"].to_numpy(float)
    panel.plot(at, value, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
    low, high = curve["lower"].to_numpy(float), curve["upper"].to_numpy(float)
    panel.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)


def _set_scale(panel: Axes, numbers: list[int]) -> None:
    panel.set_xscale("log")
    panel.minorticks_off()
    panel.set_xticks(numbers, [f"{number:,}" for number in numbers])

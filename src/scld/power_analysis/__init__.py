"""Power analysis of a planned study: power, false discoveries and cost, by simulation.

study.py         `power`, and `PowerStudy`: what it finds, and how that is written
grid.py          all studies of a design, as one table
simulate.py      one simulated study: new donors, planted effects, tests
detection.py     the statistical tests, each on plain arrays
intervals.py     of proportions over simulated studies
cache.py         results of simulated studies on disk
report.py        the HTML page
results.py       names of analyses, metrics and columns
design.py        what is to be simulated, validated

The package has not the name of the function: `scld.power` would then be a module as soon as a part
of it is imported.
"""

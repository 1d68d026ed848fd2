"""Do synthetic cells tell whose cells a generator was fitted on? Membership of donors.

study.py         `audit`, and `PrivacyAudit`: what it finds, and how that is written
replicate.py     one split of the donors: a fit, its controls, all attacks
donors.py        real cells, and disjoint sets of donors
attacks.py       scores of cells without access to the model, on plain arrays
likelihood.py    the score of an attacker who has the fitted model
success.py       scores of cells -> scores of donors -> AUC and true-positive rates
report.py        the HTML page
results.py       names of released cells, attacks, metrics and columns

The package has not the name of the function: `scld.audit` would then be a module as soon as a part
of it is imported.
"""

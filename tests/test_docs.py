"""The documents: the Python in them runs, commands parse, the API page is complete.

The tutorials run when the site is built: `.ci/run`. Here the readers' own files, such as
``atlas.h5ad``, are cells that come with scld, and every fit is a short one.
"""

import re
import shlex
import shutil
import types
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import scld
from scld.cli import main

PYTHON = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^    (scld [^\n]*(?:\\\n[^\n]*)*)", flags=re.MULTILINE)
TYPES = {"activated B cell": "plasma cell", "naive B cell": "B cell"}  # that the pages speak of
RARE = ["platelet", "myeloid dendritic cell"]
GENES = {"MX1": "ISG15", "IFIT3": "IFI6"}
DESIGN = """
donors: [2]
cells: [60]
types: [B cell]
replicates: 1
expression: {genes: 5, tests: [wilcoxon]}
rare: {replicates: 2}
composition: null
"""


ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
PAGES = {  # path -> text
    file.relative_to(ROOT).as_posix(): file.read_text()
    for file in FILES
    if "_build" not in file.parts
}
WITH_PYTHON = [page for page, text in PAGES.items() if PYTHON.search(text)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The readers' files."""
    path = tmp_path_factory.mktemp("readers")
    cells = atlas()
    train, test = scld.split(cells, "cell_type")
    files = dict.fromkeys(("atlas", "cells", "a", "b", "pilot"), cells)
    files |= {"train": train, "test": test}
    for name, adata in files.items():
        adata.write_h5ad(path / f"{name}.h5ad")
    synth = scld.Synthesizer(["cell_type", "donor"], config=scld.Config.preset("quick"))
    synth.fit(cells, progress=False)
    for name in ("atlas", "pilot"):
        synth.save(path / f"{name}.scld")
    (path / "design.yaml").write_text(DESIGN)
    return path


def atlas():
    """Some of the cells that come with scld, as another atlas with donors."""
    cells = scld.datasets.pbmc()
    rng = np.random.default_rng(0)
    genes = np.union1d(rng.permutation(cells.n_vars)[:1000], cells.var_names.get_indexer(GENES))
    rows = rng.permutation(cells.n_obs)[:1200]
    rows = rows[~cells.obs["cell_type"].isin(RARE).to_numpy()[rows]]
    cells = cells[rows, genes].copy()
    cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.rename_categories(TYPES)
    cells.obs["donor"] = [f"d{i}" for i in rng.integers(1, 7, cells.n_obs)]
    cells.obs["condition"] = np.where(cells.obs["donor"] < "d4", "control", "treated")
    cells.var_names = [GENES.get(name, name) for name in cells.var_names]
    return cells


@pytest.fixture
def reader(folder, tmp_path, monkeypatch):
    """In a folder with the files, with short fits, and audits of one."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    quick = scld.Config.preset("quick")
    monkeypatch.setattr("scld.synthesizer.Config", lambda: quick)
    once = partial(scld.audit, replicates=1)
    monkeypatch.setattr(scld, "audit", once, raising=False)
    matplotlib.use("agg")


@pytest.mark.slow
@pytest.mark.filterwarnings("default::PendingDeprecationWarning")  # of packages that pages use
@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(page, reader):
    shared, blocks = given(page), PYTHON.findall(PAGES[page])
    if any('save("atlas.scld")' in block for block in blocks):
        shutil.rmtree("atlas.scld")  # that a reader does not have yet
    for block in blocks:
        exec(compile(block, page, "exec"), shared)


def given(page):
    """What the text of a page takes for granted."""
    shared = {"scld": scld}
    if page == "docs/truth.md":  # a model with conditions
        synth = scld.Synthesizer(["cell_type", "donor", "condition"])
        synth.fit("atlas.h5ad", progress=False).save("atlas.scld", overwrite=True)
    if page == "docs/privacy.md":  # another tool, which copies its training cells
        copies = types.SimpleNamespace
        shared["other_tool"] = copies(fit=lambda cells: copies(sample=lambda n: cells[:n]))
    return shared


def commands():
    """The commands of scld in indented blocks, with their page."""
    for page, text in PAGES.items():
        for command in COMMAND.findall(text):
            yield page, shlex.split(command.replace("\\\n", " "), comments=True)


def test_the_commands_of_the_pages_parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(commands())
    assert len(found) > 10
    for page, (_, name, *words) in found:
        if "&&" in words:
            words = words[: words.index("&&")]
        for word in words:
            if re.fullmatch(r"[\w./-]+\.(scld|h5ad|zarr|csv|yaml)", word):
                (tmp_path / word).touch()  # files that must exist
        assert name in main.commands or name.startswith("-"), page
        if name in main.commands:
            main.commands[name].make_context(name, words)


def test_every_public_name_is_on_the_api_page():
    documented = set(re.findall(r":: (scld\.[\w.]+)", PAGES["docs/api.md"]))
    names = {f"scld.{name}" for name in scld.__all__}
    names |= {f"scld.data.{name}" for name in scld.data.__all__ if name not in scld.__all__}
    assert names <= documented


def test_every_page_is_in_the_contents():
    listed = re.findall(r"^(?:tutorials/)?[\w]+$", PAGES["docs/index.md"], flags=re.MULTILINE)
    there = {name.removeprefix("docs/").removesuffix(".md") for name in PAGES}
    assert there - {"README", "index"} == set(listed)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_links_of_the_first_pages_are_there(page):
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#]+)", PAGES[page])
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (folder / link).exists()] == []

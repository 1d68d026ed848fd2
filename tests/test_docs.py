"""The Python of the tutorial runs as it is printed."""

import re

import pytest


@pytest.mark.slow
def test_the_tutorial_runs(pytestconfig, capsys):
    page = (pytestconfig.rootpath / "docs" / "tutorial.md").read_text()
    shared = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, shared)
    said = capsys.readouterr().out
    assert "platelet" in said
    assert "pseudobulk" in said
    table = shared["found"].set_index(["test", "log2fc", "donors"])["value"]
    assert table["pseudobulk", 1.5, 6] > table["pseudobulk", 0.5, 3]

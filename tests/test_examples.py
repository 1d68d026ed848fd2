"""The examples in the docstrings run, on the installed package."""

import doctest
import importlib
import pkgutil

import pytest

import scld


@pytest.mark.parametrize("module", ["scld", *(found.name for found in pkgutil.walk_packages(scld.__path__, "scld."))])
def test_examples(module):
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0

"""The examples in the docstrings run, on the installed package."""

import doctest
import importlib
import pkgutil

import pytest

import scld

MODULES = ["scld", *(found.name for found in pkgutil.walk_packages(scld.__path__, "scld."))]
FITTED = "scld.synthesizer.Synthesizer"  # its methods' examples use what its own example fits


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    shared = {}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(importlib.import_module(module)):
        example.globs.update(shared)
        runner.run(example, clear_globs=False)
        if example.name == FITTED:
            shared = example.globs
    assert runner.failures == 0


def test_the_examples_of_all_methods_share_one_fit():
    examples = doctest.DocTestFinder().find(importlib.import_module("scld.synthesizer"))
    fits = [line.source for test in examples for line in test.examples if ".fit(" in line.source]
    assert len(fits) == 1
    assert examples[[test.name for test in examples].index(FITTED)].examples

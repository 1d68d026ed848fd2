"""Two sets of cells from normal distributions, for the tests of metrics."""


def clouds(rng, shift=0.0, n=120, d=4):
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)) + shift

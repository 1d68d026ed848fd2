import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from scld.kernels.trees import Trees, sum_of_trees, sum_of_trees_plain, validate_trees

BOTH = pytest.mark.parametrize("version", [sum_of_trees, sum_of_trees_plain])


def random_trees(number=5, nodes=15, features=4, seed=0):
    """Every node but the last ones has two later nodes as children, not always its own two."""
    random = np.random.default_rng(seed)
    own = np.tile(np.arange(nodes), (number, 1))
    later = [random.integers(own + 1, nodes + 1).clip(max=nodes - 1) for _ in range(2)]
    leaf = own >= nodes // 2
    feature = random.integers(0, features, own.shape)
    left, right = (np.where(leaf, own, children) for children in later)
    return Trees(feature, random.normal(size=own.shape), left, right, random.normal(size=own.shape))


def random_table(cells=300, features=4):
    return np.random.default_rng(1).normal(size=(cells, features)).astype(np.float32)


def of_sklearn(model):
    """Boosted trees of scikit-learn as arrays, a leaf its own child."""
    trees = [estimator.tree_ for estimator in model.estimators_[:, 0]]
    nodes = max(tree.node_count for tree in trees)
    arrays = [np.zeros((len(trees), nodes)) for _ in Trees._fields]
    for i, tree in enumerate(trees):
        for node in range(nodes):
            leaf = node >= tree.node_count or tree.children_left[node] < 0
            if leaf:
                value = tree.value[node].item() if node < tree.node_count else np.inf
                row = (0, 0, node, node, model.learning_rate * value)
            else:
                children = tree.children_left[node], tree.children_right[node]
                row = (tree.feature[node], tree.threshold[node], *children, 0)
            for array, value in zip(arrays, row, strict=True):
                array[i, node] = value
    feature, threshold, left, right, value = arrays
    whole = (array.astype(np.int64) for array in (feature, left, right))
    feature, left, right = whole
    return Trees(feature, threshold, left, right, value)


@pytest.mark.parametrize("seed", range(5))
def test_the_compiled_sum_is_the_plain_one(seed):
    trees, table = random_trees(seed=seed), random_table()
    np.testing.assert_array_equal(sum_of_trees(table, trees), sum_of_trees_plain(table, trees))


@BOTH
def test_the_sum_is_what_scikit_learn_predicts(version):
    table = random_table()
    target = np.sin(table).sum(axis=1) + table[:, 0] * table[:, 1]
    settings = {"n_estimators": 30, "max_depth": 4, "init": "zero", "random_state": 0}
    model = GradientBoostingRegressor(**settings).fit(table, target)
    np.testing.assert_allclose(version(table, of_sklearn(model)), model.predict(table), rtol=1e-12)


@BOTH
def test_a_cell_at_the_threshold_goes_left(version):
    left, right = np.array([[1, 1, 2]]), np.array([[2, 1, 2]])
    threshold, value = np.array([[0.5, 0, 0]]), np.array([[0, -1.0, 1.0]])
    trees = Trees(np.zeros((1, 3), np.int64), threshold, left, right, value)
    table = np.array([[0.5], [np.nextafter(np.float32(0.5), np.float32(1))]], np.float32)
    assert version(table, trees).tolist() == [-1, 1]


@BOTH
def test_no_trees_and_no_cells_give_zeros_and_nothing(version):
    none = Trees(*(array[:0] for array in random_trees()))
    validate_trees(none, 4)
    assert version(random_table(3), none).tolist() == [0, 0, 0]
    assert version(random_table(0), random_trees()).shape == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_trees_are_valid_for_as_many_features_as_they_compare_and_no_fewer(seed):
    trees = random_trees(seed=seed)
    number = int(trees.feature.max()) + 1
    validate_trees(trees, number)
    validate_trees(trees, number + 1)
    with pytest.raises(ValueError, match="features"):
        validate_trees(trees, number - 1)


def damaged(name, value, node=3):
    """Trees with one other number."""
    trees = random_trees()
    array = getattr(trees, name).copy()
    array[1, node] = value
    return trees._replace(**{name: array})


DAMAGED = {
    "child far outside": damaged("left", 10**9),
    "child just outside": damaged("right", 15),
    "negative child": damaged("left", -1),
    "cycle to the root": damaged("right", 0),
    "cycle of two nodes": damaged("left", 2),
    "leaf on one side only": damaged("left", 3),
    "leaf with a child": damaged("right", 14, node=13),
    "negative feature": damaged("feature", -1),
    "feature far outside": damaged("feature", 10**9),
    "feature just outside": damaged("feature", 4),
    "feature of a leaf outside": damaged("feature", 4, node=14),
    "threshold not a number": damaged("threshold", np.nan),
    "infinite threshold": damaged("threshold", np.inf),
    "value not a number": damaged("value", np.nan),
    "infinite value": damaged("value", -np.inf),
    "a tree short": random_trees()._replace(left=random_trees().left[:-1]),
    "a node short": random_trees()._replace(value=random_trees().value[:, :-1]),
    "transposed": random_trees()._replace(threshold=random_trees().threshold.T),
    "one dimension": Trees(*(array[0] for array in random_trees())),
    "three dimensions": Trees(*(array[None] for array in random_trees())),
    "no nodes": Trees(*(array[:, :0] for array in random_trees())),
    "children in float64": random_trees()._replace(left=random_trees().left.astype(float)),
    "thresholds in float16": random_trees()._replace(
        threshold=random_trees().threshold.astype("f2")
    ),
    "features in int32": random_trees()._replace(feature=random_trees().feature.astype("i4")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_trees_are_refused(name):
    """The compiled loop would read beyond the arrays, or never end, on most of these."""
    with pytest.raises(ValueError, match="trees: "):
        validate_trees(DAMAGED[name], 4)

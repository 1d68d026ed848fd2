"""The negative log-likelihood of sparse counts."""

from __future__ import annotations

from torch import Tensor

from scld.kernels.likelihood import nll_compiled, nll_plain
from scld.kernels.parallel import is_compiled_case
from scld.kernels.sparse import PaddedCounts, SparseCounts


def negative_log_likelihood(
    logits: Tensor,
    log_library: Tensor,
    offset: Tensor,
    slope: Tensor,
    counts: SparseCounts | PaddedCounts,
    outlier_rate: float = 0.0,
) -> Tensor:
    r"""-log p of the counts of some cells, in nats: the mean over cells.

    The counts of a gene are negative binomial with mean mu, its expression proportion (the softmax
    of the logits) times the library size, and variance mu + mu^2 / r:

    .. math:: \log p(x) = \log\frac{\Gamma(x + r)}{\Gamma(r)\,x!}
              + x \log\frac{\mu}{\mu + r} - r \log(1 + \mu / r)

    The log-dispersion follows a power of the proportion, offset + slope log p, between 0.01 and
    10,000. Only the last term exists at every gene; the others are needed at non-zero counts alone.

    With an outlier rate s, a count x from m = 5 on has probability p(x) + s m / (x (x + 1)), a
    heavy tail. It explains a single count of 50 in a gene that is otherwise nearly Poisson, which
    would else look over-dispersed in every cell.

    Parameters
    ----------
    logits
        ``[cells, genes]``.
    log_library
        Log library sizes ``[cells]``; no gradient reaches them.
    offset, slope
        ``[genes]``, of the log-dispersion.
    counts
        The non-zero counts.
    outlier_rate
        Expected outliers per count.

    Examples
    --------
    >>> import torch
    >>> gene, starts = torch.zeros(1, dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
    >>> counts = SparseCounts(torch.ones(1), gene, starts)
    >>> zero = torch.zeros(1)
    >>> mu_r_and_x_are_1 = (torch.zeros(1, 1), zero, zero, zero, counts)
    >>> nats = negative_log_likelihood(*mu_r_and_x_are_1)
    >>> round(float((-nats).exp()), 6)
    0.25
    """
    if isinstance(counts, SparseCounts) and is_compiled_case(logits):
        return nll_compiled(logits, log_library, offset, slope, counts, outlier_rate)
    return nll_plain(logits, log_library, offset, slope, counts, outlier_rate)

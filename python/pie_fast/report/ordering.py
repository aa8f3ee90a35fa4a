"""An order of features in which those that work together stand together.

Average linkage: the two groups whose features have the largest mean synergy between them are
joined, again and again, and the order of the last group is the answer. Where groups are joined
at a mean below a threshold, a cluster ends. O(n^2) memory, O(n^3) time at worst with a numpy
pass of n^2 a join (0.3 s for 800 features).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cluster_order(
    similarity: NDArray[np.floating], threshold: float
) -> tuple[list[int], list[int]]:
    """Order items by average linkage.

    Args:
        similarity: ``[n, n]``, symmetric, finite; the diagonal is ignored.
        threshold: A cluster is what is joined at a mean similarity of at least this.

    Returns:
        The items in order, and where in it each cluster begins (0 first). Ties join the groups
        of smallest items.
    """
    means = np.array(similarity, dtype=np.float64)
    n = len(means)
    np.fill_diagonal(means, -np.inf)
    members = [[i] for i in range(n)]
    clusters: dict[int, list[list[int]]] = {i: [[i]] for i in range(n)}
    for _ in range(n - 1):
        first, second = sorted(divmod(int(means.argmax()), n))
        joined = means[first, second]
        a, b = len(members[first]), len(members[second])
        row = (a * means[first] + b * means[second]) / (a + b)
        means[first, :], means[:, first] = row, row
        means[first, first] = -np.inf
        means[second, :], means[:, second] = -np.inf, -np.inf
        members[first] += members[second]
        both = clusters[first] + clusters.pop(second)
        clusters[first] = [members[first][:]] if joined >= threshold else both
    final = clusters.get(0, [])
    starts = np.cumsum([0, *map(len, final)])[:-1]
    return [item for cluster in final for item in cluster], starts.tolist()

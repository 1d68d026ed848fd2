"""Cells and models in and out of files. ``scld.data`` is this package.

read        an AnnData, .h5ad or .zarr -> matrix, obs and gene names
counts      the matrix -> raw counts, validated once
split       cells -> training and test cells
write       generated cells -> .h5ad or .zarr, one batch at a time
shards      generated cells -> a folder of zarr stores, each made on its own
sealed      a folder of files with checksums
checkpoint  a fitted model as a directory
text        reports and tables as text files
atomic      write to a temporary sibling, then rename
"""

from scld.io.counts import count_matrix
from scld.io.read import read
from scld.io.shards import open_shards
from scld.preprocessing import permuted

__all__ = ["count_matrix", "open_shards", "permuted", "read"]

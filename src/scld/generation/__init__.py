"""From a fitted model to synthetic cells.

options        how to sample: SamplingOptions, validated
request        which cells to generate: labels, one row per cell
generator      labels -> latent points -> counts, one page of cells at a time
post_guidance  a discriminator of finished cells, and the selection among candidates
latent_map     generated latent points get the moments of encoded cells
latent_shift   combinations of labels that training never saw
editing        real cells in: augment and transfer
batches        pages of counts -> AnnData
fitted         the whole model: sample, save, load
"""

"""From a fitted model to synthetic cells.

options        how to sample: SamplingOptions, validated
request        which cells to generate: labels, one row per cell
design         what is designed into them: effects, other labels, depth, new donors, artefacts
effects        chosen genes with chosen fold changes in chosen cells
donors         donors that were never there
population     latent points of one normal distribution
artefacts      doublets, ambient RNA, empty droplets
changes        how the expected counts of cells differ
truth          true fold changes between groups of generated cells
generator      labels -> latent points -> counts, one page of cells at a time
post_guidance  a discriminator of finished cells, and the selection among candidates
latent_map     generated latent points get the moments of encoded cells
latent_shift   combinations of labels that training never saw
editing        real cells in: augment and transfer
batches        pages of counts -> AnnData
fitted         the whole model: sample, save, load
"""

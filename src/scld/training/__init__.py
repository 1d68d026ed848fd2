"""From counts and labels to a fitted model.

fit          a source of cells -> a fitted model: read, check, train, save
stages       autoencoder, latents, denoiser, calibration: one after another
loop         the training of one network: averaged weights, early stopping
state        the state of an unfinished training on disk, to continue from
calibration  generated cells get the spread and the means of real ones
memory       what a fit will need, checked before it starts
"""

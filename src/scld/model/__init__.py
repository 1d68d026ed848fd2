"""The method.

autoencoder  counts -> a latent point -> the negative binomial of each count
profiles     what each category does to the mean of each gene
likelihood   the log-likelihood of counts under that distribution
latents      the training cells in latent space, standardised: the data of the diffusion model
denoiser     the diffusion model: a network inside EDM's preconditioning
guidance     pre-guidance: a conditional denoiser and labels -> denoise(x, sigma)
sampler      noise levels, and a solver of the diffusion ODE for any denoise(x, sigma)
"""

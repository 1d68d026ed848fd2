"""Compiled CPU code, and the plain equivalent of each function.

jit         how functions are compiled
parallel    parallel_for: the parts of a batch on several threads
likelihood  negative binomial log-likelihood of sparse counts, with its gradients
sampling    exact negative binomial counts, written straight to CSR
trees       the sums of boosted trees
"""

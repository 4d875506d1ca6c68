"""Interceptors: what stands on a policy's methods, and the denoising run that they take part in."""

"""Interceptors shadow a policy's methods and share one denoising run."""

"""Does caching work on an image model too? A class-conditional DiT on scikit-learn's digits, 8 x 8 pixels.

The model is diffusers' `DiTTransformer2DModel` in diffusers' `DiTPipeline`; `bac.wrap(pipe, schedule)` takes both as
they come. ``python -m eval.experiments.images`` measures its loop, which can be replayed; ``.images.timing`` times its
best method again; ``.images.train`` makes the checkpoint.
"""

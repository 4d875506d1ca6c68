"""Caching on an image model: a class-conditional DiT on scikit-learn's digits, 8 x 8 pixels.

The model is diffusers' `DiTTransformer2DModel` in diffusers' `DiTPipeline`; `bac.wrap(pipe, schedule)` accepts both
unchanged. ``python -m eval.experiments.images`` measures the pipeline's loop, which can be replayed.
``python -m eval.experiments.images.timing`` times the best method again, and
``python -m eval.experiments.images.train`` makes the checkpoint. ``python -m eval.experiments.images.flow`` measures
few-step solvers on the same model trained by flow matching.
"""

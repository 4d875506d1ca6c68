"""REUSE: block-wise adaptive caching.

`calibration` measures how similar a block's outputs are over denoising steps; `schedulers` choose its update steps;
`estimators` give its value at the others; `interceptors` store, reuse and count. `interceptors.patch` is the only file
that mutates a model.
"""

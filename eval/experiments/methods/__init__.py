"""Which way to denoise? Schedulers, estimators and solvers, each at what it costs and how far its actions are off."""

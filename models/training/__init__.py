"""Training: options, preparation, the training loop, prediction, ensembles and repeated runs."""

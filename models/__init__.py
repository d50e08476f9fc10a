"""Systems, batches, training and evaluation: everything that reads feature stores. Depends on `pipeline` alone."""

"""Model zoo: one module per study, and the architectures and layers that the studies share."""

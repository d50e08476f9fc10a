"""The architectures: one module per study, and the building blocks they share."""

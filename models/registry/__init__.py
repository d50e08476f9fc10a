"""Registry of systems: their builders, inputs and recipes, and initial weights from files."""

"""Declarative inputs shipped with the package: dataset descriptions and training recipes."""

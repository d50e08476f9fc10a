"""The option `--device` of the commands that run a model."""

from __future__ import annotations

import click

#: Decorator that adds `--device`; `device.choose_device` reads its value.
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:N, mps (Apple), or auto: CUDA if there is a GPU, else the CPU.",
)

"""``python -m benchmarks SUITE``: benchmarks of the package and its peers, from a checkout."""

import pkgutil
from importlib import import_module

import click
import torch

import benchmarks
from benchmarks.suite.command import SUITES


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of the CPU.")
def main(threads: int) -> None:
    """Benchmark the package and its peers on this machine.

    \b
        pip install -e '.[bench]'
        python -m benchmarks speed --json speed.json
    """
    torch.set_num_threads(threads)


# Importing a suite registers it.
for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
for suite in SUITES.values():
    main.add_command(suite)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")

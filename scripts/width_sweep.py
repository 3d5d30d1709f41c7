"""A width sweep on every GPU or TPU of one machine or of several: `lazynet sweep`, begun on each of them.

    python scripts/width_sweep.py --widths 256 1024 4096 16384 --seeds 16 --out runs/wide --resume

On one machine its devices share the networks. On several, run it on each with `--hosts`, which SLURM and Cloud TPU
explain by themselves; elsewhere say where the first host listens, how many there are and which this one is:

    python scripts/width_sweep.py --hosts 10.0.0.1:1234 4 0 --widths 256 1024 4096 16384 --seeds 16 --out runs/wide

The first host reads and writes the folder. Flags after those of this script are those of `lazynet sweep`.
"""

import sys

import jax

from lazynet import cli


def connect(arguments: list[str]) -> list[str]:
    """Take `--hosts [ADDRESS NUMBER THIS]` off the arguments and connect to the other hosts."""
    if "--hosts" not in arguments:
        return arguments
    at = arguments.index("--hosts")
    given = []
    for word in arguments[at + 1 : at + 4]:
        if word.startswith("--"):
            break
        given.append(word)
    if len(given) not in (0, 3) or (given and not (given[1].isdigit() and given[2].isdigit())):
        sys.exit(
            "--hosts takes nothing, or the address of the first host, how many there are and which this is, from 0"
        )
    if given:
        jax.distributed.initialize(given[0], int(given[1]), int(given[2]))
    else:
        try:
            jax.distributed.initialize()
        except ValueError:
            sys.exit("--hosts alone is for SLURM, MPI and Cloud TPU, none of which is here; name the hosts")
    return arguments[:at] + arguments[at + 1 + len(given) :]


if __name__ == "__main__":
    rest = connect(sys.argv[1:])
    if not {"--help", "-h"} & set(rest):
        devices = jax.devices()
        if jax.process_index() == 0:
            kind, hosts = devices[0].device_kind, jax.process_count()
            print(f"{len(devices)} x {kind} on {hosts} host{'s' * (hosts > 1)}", file=sys.stderr)
    else:
        print(__doc__)
    sys.exit(cli.start(["sweep", *rest]))

"""Run `lazynet sweep` on all GPUs or TPUs of one machine or of several.

    python scripts/width_sweep.py --widths 256 1024 4096 16384 --seeds 16 --out runs/wide --resume

On one machine the devices share the networks. On several machines, start the script on each with `--hosts`. SLURM and
Cloud TPU provide the addresses; elsewhere name the address of the first host, the number of hosts and this host:

    python scripts/width_sweep.py --hosts 10.0.0.1:1234 4 0 --widths 256 1024 4096 16384 --seeds 16 --out runs/wide

The first host reads and writes the folder. Flags after those of this script are those of `lazynet sweep`.
"""

import sys

import jax

from lazynet import cli


def connect(arguments: list[str]) -> list[str]:
    """Connect to the hosts that `--hosts [ADDRESS NUMBER THIS]` names; return the other arguments."""
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
            "--hosts must have no values, or three: the address of the first host, the number of hosts and the number "
            "of this host, from 0"
        )
    if given:
        jax.distributed.initialize(given[0], int(given[1]), int(given[2]))
    else:
        try:
            jax.distributed.initialize()
        except ValueError:
            sys.exit("--hosts must name the hosts outside of SLURM, MPI and Cloud TPU")
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

"""Run `lazynet sweep` on all GPUs or TPUs of one or more machines.

    python scripts/width_sweep.py --widths 256 1024 4096 16384 --seeds 16 --out runs/wide --resume

The networks are divided among the devices. To use several machines, run the script on each of them with `--hosts`.
Under SLURM or MPI and on Cloud TPU, JAX detects the hosts. Elsewhere, give the address of the first host, the number of
hosts, and the number of this host, counting from 0:

    python scripts/width_sweep.py --hosts 10.0.0.1:1234 4 0 --widths 256 1024 4096 16384 --seeds 16 --out runs/wide

Only the first host reads and writes the folder. All other flags are flags of `lazynet sweep`.
"""

import sys

import jax

from lazynet import cli


def connect(arguments: list[str]) -> list[str]:
    """Connect to the other hosts if `--hosts [ADDRESS COUNT NUMBER]` is given, and return the remaining arguments."""
    if "--hosts" not in arguments:
        return arguments
    at = arguments.index("--hosts")
    words = []
    for word in arguments[at + 1 : at + 4]:
        if word.startswith("--"):
            break
        words.append(word)
    if len(words) not in (0, 3) or (words and not (words[1].isdigit() and words[2].isdigit())):
        sys.exit(
            "--hosts must be empty, or the address of the first host, the number of hosts and the number of this host, "
            f"got {' '.join(words)!r}."
        )
    if words:
        jax.distributed.initialize(words[0], int(words[1]), int(words[2]))
    else:
        try:
            jax.distributed.initialize()
        except ValueError:
            sys.exit(
                "--hosts must be followed by the address of the first host, the number of hosts and the number of "
                "this host, because JAX detects the hosts only under SLURM or MPI and on Cloud TPU."
            )
    return arguments[:at] + arguments[at + 1 + len(words) :]


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

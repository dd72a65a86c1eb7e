"""Compute and measure the memory that a training takes.

    python -m benchmarks.memory --preset celeba-dcgan --set data.resolution=256 --set optim.batch_size=16 \
        --set 'model.g_widths=[512,512,256,128,64,32]' --set 'model.d_widths=[32,64,128,256,512,512]'

Trains on noise: the memory does not depend on the images. The device is `run.device`.
"""

from __future__ import annotations

from benchmarks import harness
from benchmarks.memory.training_memory import estimate, measure
from trainer.config import loading
from trainer.errors import TrainerError


def main() -> None:
    """Compute and measure one config."""
    parser = harness.make_parser(__doc__, "memory")
    parser.add_argument("--preset", default="celeba-dcgan")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--steps", type=int, default=4, help="0: compute only")
    args = parser.parse_args()
    try:
        config = loading.resolve(args.preset, args.set)
    except TrainerError as error:
        parser.error(str(error))
    computed, measured = estimate(config), measure(config, args.steps) if args.steps > 0 else None
    machine = harness.describe_machine()
    settings = {"preset": args.preset, "set": args.set, "steps": args.steps}
    harness.write(args.output, {"machine": machine, **settings, "computed": computed, "measured": measured})
    data = config.data
    print(f"{args.preset}, {data.resolution} px, {data.channels} channels, batch {config.optim.batch_size}")
    for name, size in computed.items():
        print(f"computed, float32: {size / 2**30:.2f} GiB {name}")
    print(f"computed in all: {sum(computed.values()) / 2**30:.2f} GiB")
    if measured is not None:
        print(f"measured peak: {measured['peak'] / 2**30:.2f} GiB; {measured['images_per_second']:.1f} images/s")
    print(f"→ {args.output}")


if __name__ == "__main__":
    main()

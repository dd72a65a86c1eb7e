"""Which images a convolutional generator can make: a small first map, doubled some times, is the whole image."""

from __future__ import annotations

from artifacts.images.resolution import Resolution, height_and_width, parse_resolution, resolution_of

MIN_SIDE, MAX_SIDE = 4, 256  # pixels
FIRST_SIDES = range(4, 10)  # what the shorter side of the first map may be


def check_resolution(value: object) -> Resolution:
    """Return `data.resolution` of a side, a pair (height, width) or a text such as `64x96`; raise ValueError."""
    resolution = parse_resolution(int(value) if isinstance(value, float) and value.is_integer() else value)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in height_and_width(resolution)):
        raise ValueError(f"Input should be {MIN_SIDE} to {MAX_SIDE} pixels per side")
    return resolution


def num_upsamples(resolution: Resolution) -> int:
    """Return how often a generator doubles its first feature map.

    Raises:
        ValueError: If doubling cannot reach the resolution; the message names the nearest that it can.
    """
    sides = height_and_width(resolution)
    count = 0
    while all(side % 2 == 0 for side in sides) and min(sides) // 2 >= FIRST_SIDES[0]:
        sides, count = (sides[0] // 2, sides[1] // 2), count + 1
    if not count or min(sides) not in FIRST_SIDES:
        raise ValueError(
            f"a convolutional generator cannot make {resolution} px: it doubles a first map whose shorter side is "
            f"{FIRST_SIDES[0]} to {FIRST_SIDES[-1]}; near it are {' and '.join(map(str, nearest(resolution)))}"
        )
    return count


def first_map(resolution: Resolution) -> tuple[int, int]:
    """Return the height and width of a generator's first feature map, as small as `FIRST_SIDES` allow."""
    height, width = height_and_width(resolution)
    count = num_upsamples(resolution)
    return height >> count, width >> count


def initial_resolution(resolution: int) -> int:
    """Return the side of the first feature map of square images."""
    return first_map(resolution)[0]


def nearest(resolution: Resolution) -> list[Resolution]:
    """Return the two nearest resolutions that a convolutional generator can make; squares for a square."""
    wanted = height_and_width(resolution)
    found: set[tuple[int, int]] = set()
    for count in range(1, 7):
        sides = [side << count for side in range(FIRST_SIDES[0], (MAX_SIDE >> count) + 1)]
        shortest, longest = sides[0], FIRST_SIDES[-1] << count
        found |= {(h, w) for h in sides for w in sides if shortest <= min(h, w) <= longest}
    if wanted[0] == wanted[1]:
        found = {(height, width) for height, width in found if height == width}
    ranked = sorted(found, key=lambda sides: (abs(sides[0] - wanted[0]) + abs(sides[1] - wanted[1]), sides))
    return [resolution_of(*sides) for sides in sorted(ranked[:2])]

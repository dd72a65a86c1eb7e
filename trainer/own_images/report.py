"""What was found in a set of images and what was chosen for it, and the lines that say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from artifacts.images.alpha import RGBA
from artifacts.terminal import printable
from imagesets import ImageSet
from trainer.config.schema import Config
from trainer.own_images.choices import FEW, Choice
from trainer.own_images.duplicates import Duplicates
from trainer.own_images.estimate import Estimate
from trainer.own_images.findings import TRANSPARENT, Findings

_LABEL, _VALUE = 18, 26  # columns
_MOST_SIZES, _MOST_CLASSES = 2, 4
_ENOUGH = 1_000  # images from which memorization is rare within the lengths that are chosen
_MANY_DUPLICATES = 0.1


@dataclass(frozen=True)
class Inspection:
    """What was found in a set of images, and what was chosen for a run on it.

    Attributes:
        findings: Number, sizes, colors and classes.
        duplicates: Images that the set has more than once.
        choices: The settings that were chosen or given, with reasons.
        config: The config of the run, for `trainer.train`.
        estimate: Speed and memory of the training; None if it was not measured.
        images: The images as they are trained on.
        cache: The folder in which they are kept.
        names: Names of the images that are examples of duplicates, by their index.
    """

    findings: Findings
    duplicates: Duplicates
    choices: tuple[Choice, ...]
    config: Config
    estimate: Estimate | None
    images: ImageSet = field(repr=False)
    cache: Path
    names: dict[int, str] = field(default_factory=dict)

    @property
    def different(self) -> int:
        """Number of images without exact duplicates."""
        return len(self.images) - self.duplicates.exact

    def __str__(self) -> str:
        """Return what `trainer train SOURCE --dry-run` prints."""
        return "\n".join(lines(self))


def lines(found: Inspection) -> list[str]:
    """Return the findings, the choices with their reasons, the estimate and advice."""
    return [
        f"found in {found.choices[0].value}",
        *(_row(label, text) for label, text in _findings(found)),
        "chosen (change with --set FIELD=VALUE, --preset or --init-from)",
        *map(_choice, found.choices),
        *(_row("" if number else "estimate", text) for number, text in enumerate(_estimate(found))),
        _row("cache", f"the images are decoded once, into {found.cache}"),
        *(f"note: {text}" for text in notes(found)),
    ]


def _row(label: str, text: str) -> str:
    return f"  {label:{_LABEL}}{text}"


def _choice(choice: Choice) -> str:
    value = choice.value
    if isinstance(value, bool):
        value = "yes" if value else "no"
    elif isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    elif isinstance(value, float):
        value = f"{value:g}"
    return _row(choice.field, f"{value!s:{_VALUE - 1}} {choice.reason}")


def _findings(found: Inspection) -> Iterator[tuple[str, str]]:
    headers, images, same = found.findings.headers, found.images, found.duplicates
    formats = ", ".join(
        f"{name} {n:,}" if len(headers.formats) > 1 else name for name, n in headers.formats.most_common()
    )
    few = headers.sizes.most_common(_MOST_SIZES)
    sizes = ", ".join(f"{w}x{h} px ({n:,})" if len(headers.sizes) > 1 else f"{w}x{h} px" for (w, h), n in few)
    if (others := len(headers.sizes) - len(few)) > 0:
        sizes += f" and {others:,} other sizes"
    sample = "" if headers.looked_at == headers.count else f"; {headers.looked_at:,} were looked at"
    yield "images", f"{len(images):,}{f' ({formats})' if formats else ''}: {sizes}{sample}"
    modes = ", ".join(f"{mode} {n:,}" for mode, n in headers.modes.most_common())
    yield "colors", f"{'gray' if found.findings.is_gray else 'color'} ({modes})"
    yield "classes", _classes(headers.class_names, headers.class_counts)
    yield "duplicates", f"{same.exact:,}" + _example(found, same.exact_example)
    yield (
        "near-duplicates",
        f"{same.near:,} of {same.compared:,} compared (by {same.features})" + _example(found, same.near_example),
    )


def _classes(names: Sequence[str], counts: Sequence[int]) -> str:
    if not names:
        return "none"
    shown = ", ".join(f"{printable(name)} {n:,}" for name, n in list(zip(names, counts, strict=True))[:_MOST_CLASSES])
    return f"{len(names):,}: {shown}{', …' if len(names) > _MOST_CLASSES else ''}"


def _example(found: Inspection, pair: tuple[int, int] | None) -> str:
    if pair is None:
        return ""
    return f", such as {' and '.join(found.names.get(index, f'image {index}') for index in pair)}"


def _estimate(found: Inspection) -> Iterator[str]:
    if (estimate := found.estimate) is None:
        return
    kimg = found.config.run.total_kimg
    where = "on the GPU" if estimate.is_gpu_memory else f"on {_counted(estimate.threads, 'CPU thread')}"
    seconds = estimate.seconds(kimg)
    yield (
        f"about {duration(seconds)} for {kimg:g} kimg ({estimate.images_per_second:,.0f} images/s {where}, from "
        f"{estimate.steps} steps), {estimate.memory_bytes / 1e9:.1f} GB of {'GPU ' * estimate.is_gpu_memory}memory"
    )
    if seconds > 3600:
        hour = 3.6 * estimate.images_per_second
        yield f"one hour is {hour:.2g} kimg: --set run.total_kimg={float(f'{hour:.2g}'):g}"


def duration(seconds: float) -> str:
    """Return a time in one or two units: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def notes(found: Inspection) -> list[str]:
    """Return what the user may want to do about the images, a sentence each."""
    headers, info, same = found.findings.headers, found.images.info, found.duplicates
    total, count = headers.looked_at, len(found.images)
    is_fine_tuned = not any(choice.field == "preset" for choice in found.choices)
    advice = "add images" + ("" if is_fine_tuned else ", or start from a run on similar ones with --init-from RUN")
    texts: list[str | None] = [
        f"{found.different:,} different images are so few that the GAN will copy them; {advice}"
        if found.different < FEW
        else f"with {found.different:,} different images the GAN may copy some of them; {advice}"
        if found.different < _ENOUGH
        else None,
        f"{same.exact:,} of {count:,} images are copies of others, and are trained on each time; remove them"
        if same.exact > _MANY_DUPLICATES * count
        else None,
        f"{same.near:,} images look like another one; if they are copies or frames of a film, keep one of each"
        if same.near > _MANY_DUPLICATES * same.compared
        else None,
        f"{same.blank:,} images have one color, after the crop; look at them" if same.blank else None,
        f"{found.findings.panoramas:,} of {total:,} images are 2.5 times as long as wide, or longer: their center "
        "square is used; cut them into squares, or train rectangles with --set data.resolution=32x96 (height x width)"
        if found.findings.panoramas and found.config.data.height == found.config.data.width
        else None,
        _conversion(
            found.findings.mode_count(*TRANSPARENT),
            total,
            "transparency",
            "is kept" if found.config.data.channels == RGBA else "is drawn over white; --set data.channels=4 keeps it",
        ),
        _conversion(found.findings.mode_count("I;16"), total, "16 bits per pixel", "become 8 bits"),
        f"{info['several_frames']:,} files have several frames, of which the first is used; save the frames as files "
        "to use all"
        if info.get("several_frames")
        else None,
        f"{len(info['skipped']):,} files cannot be read, such as {info['skipped'][0]['file']}; they are left out"
        if info.get("skipped")
        else None,
    ]
    return [text for text in texts if text is not None]


def _conversion(count: int, total: int, what: str, becomes: str) -> str | None:
    """Return a note on images that are converted; None without any."""
    return (
        f"{'all' if count == total else f'{count:,} of {total:,}'} images have {what}, which {becomes}"
        if count
        else None
    )

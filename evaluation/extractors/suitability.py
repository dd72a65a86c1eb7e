"""Check whether a classifier's features are meaningful for the images that it is to score."""

from __future__ import annotations

from typing import Any

from evaluation.errors import EvaluationError
from evaluation.extractors.extractor import Extractor


def accuracy_limits(chance: float) -> tuple[float, float]:
    """Return the accuracies below which a classifier is rejected, and below which there is a warning.

    They are twice `chance`, the share of the most frequent class (with two classes that is 1, so at most halfway from
    chance to 1), and halfway from chance to 1.
    """
    halfway = (1 + chance) / 2
    return min(2 * chance, halfway), halfway


def suitability_warnings(
    extractor: Extractor, image_set: dict[str, Any] | None = None, *, force: bool = False
) -> list[str]:
    """Return warnings about a classifier that is weak, or was trained on another image set than it scores.

    An extractor whose file records no accuracy (Inception, a custom network) is not checked, nor are real images that
    are not known yet (None). Without `force`, an accuracy below twice chance raises EvaluationError.
    """
    metadata, accuracy = extractor.metadata, extractor.numbers.get("accuracy")
    if accuracy is None:
        return []
    trained = metadata.get("dataset", "an unnamed image set")
    known = f"{extractor.name}, trained on {trained}, has an accuracy of {accuracy:.1%}"
    warnings = []
    # That of always answering the most frequent class, or any class if their frequencies are not recorded.
    chance = extractor.numbers.get("chance", 1 / len(extractor.class_names) if extractor.class_names else None)
    if chance is not None:
        minimum, sufficient = accuracy_limits(chance)
        if accuracy < minimum:
            weak = f"the classifier {known}, and chance is {chance:.1%}: scores in its features mean little"
            if not force:
                raise EvaluationError(f"{weak}; train a better one, or give --force to score with it")
            warnings.append(weak)
        elif accuracy < sufficient:
            warnings.append(
                f"the classifier {known}, and chance is {chance:.1%}: read scores in its features with care"
            )
    if image_set is not None and (other := _different_images(metadata, image_set)):
        warnings.append(f"the classifier {known}, and the real images are {other}: its features were not made for them")
    return warnings


def _different_images(metadata: dict[str, str], image_set: dict[str, Any]) -> str | None:
    """Return a phrase for the real images if they are not of the set that the classifier was trained on."""
    dataset, content = metadata.get("dataset"), image_set.get("fingerprint")
    known = {"train": metadata.get("dataset_fingerprint"), "test": metadata.get("test_fingerprint")}
    if dataset is None or (content is not None and content in known.values()):
        return None
    name = str(image_set.get("name") or image_set.get("source"))
    if image_set.get("source") != (dataset.rpartition("@")[0] or dataset):
        return f"of {name}"
    expected = known.get(str(image_set.get("split")))
    same_form = all(str(image_set.get(key)) == metadata.get(key) for key in ("resolution", "channels"))
    if content is not None and expected is not None and same_form:
        return f"of {name} with other content"
    return None

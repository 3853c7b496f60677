"""Material: what a network is trained on, by one split."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurepipe.errors import FitError
from featurepipe.features.extraction.pixel_cache import PixelCache
from featurepipe.features.headless import HeadlessNetwork
from featurepipe.manifest import Labels, Manifest
from featurepipe.models.answers.questions import Question, make_questions
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.models.networks.outputs import Output, Targets, make_outputs, make_targets
from featurepipe.models.networks.validation import draw_validation
from featurepipe.runs.fitted_on import checksum_digest
from featurepipe.splits import Split

if TYPE_CHECKING:
    from featurepipe.models.networks.training_loop import Part

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Material:
    """What a network is trained on, by one split.

    Attributes
    ----------
    manifest : Manifest
    pixels : PixelCache
    split : Split
    settings : NetworkSettings
    headless : HeadlessNetwork or None
    labels : dict of str to Labels
        Of the training images, those of the validation part included; so the next three.
    targets : Targets
    questions : list of Question
        Their columns are not known yet.
    validation : ndarray of intp
        Which of them validate.
    outputs : list of Output
    """

    manifest: Manifest
    pixels: PixelCache
    split: Split
    settings: NetworkSettings
    headless: HeadlessNetwork | None
    labels: dict[str, Labels]
    targets: Targets
    questions: list[Question]
    validation: Rows
    outputs: list[Output]

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        pixels: PixelCache,
        split: Split,
        settings: NetworkSettings,
        headless: HeadlessNetwork | None,
    ) -> "Material":
        """Look up labels, and draw the validation part."""
        missing = [image_id for image_id in split.ids if image_id not in pixels.row_of]
        if missing:
            raise FitError(
                f"{len(missing)} of the {len(split.ids)} images of the split {split.name} cannot "
                f"be read, such as {missing[0]!r}, which had features. Restore them, or make "
                "another split: --seed."
            )
        train = split.rows("train")
        labels, groups = manifest.labels(split.ids[train]), split.groups[train]
        columns = dict.fromkeys(labels, ())
        questions = make_questions(labels, settings.task, columns, groups).questions
        targets = make_targets(labels, settings)
        validation = draw_validation(labels, targets, groups, settings.seed)
        outputs = make_outputs(labels, settings)
        return cls(
            manifest, pixels, split, settings, headless, labels, targets, questions, validation,
            outputs,
        )  # fmt: skip

    @cached_property
    def pixels_sha256(self) -> str:
        """Over the checksums of the pixels of all images of the split."""
        return checksum_digest(self.pixels.checksums(self.split.ids))

    @property
    def train(self) -> Rows:
        """Positions in the split of the training images."""
        return self.split.rows("train")

    @property
    def fitted(self) -> Rows:
        """Which of the training images weights are learnt from."""
        return np.setdiff1d(np.arange(len(self.train)), self.validation)

    def part(self, rows: Rows, features: NDArray[np.float32] | None) -> "Part":
        """Some of the training images, as the training loop takes them."""
        from featurepipe.models.networks.training_loop import Part

        ids = self.split.ids[self.train[rows]]
        return Part(
            lambda places: self.pixels.read(ids[places]),
            self.targets.take(rows),
            None if features is None else features[rows],
        )

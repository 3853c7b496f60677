"""The images and labels that `fit` and `train` work with."""

from featurepipe.errors import FitError, WorkspaceError
from featurepipe.manifest import Manifest, Relabelling
from featurepipe.models.answers.finishing import attributes_with_thresholds
from featurepipe.models.answers.questions import check_questions
from featurepipe.models.heads.head_settings import HeadSettings
from featurepipe.models.networks.network_settings import NetworkSettings
from featurepipe.progress import tell
from featurepipe.splits import Split
from featurepipe.workspace import Workspace


def require_images(workspace: Workspace) -> None:
    """Stop if a workspace holds no images, before anything is created there.

    Parameters
    ----------
    workspace : Workspace

    Raises
    ------
    WorkspaceError
    """
    if not workspace.manifest.exists():
        raise WorkspaceError(
            f"The workspace {workspace.root} has no images yet. Begin with: "
            "featurepipe extract FOLDER"
        )


def relabelled(manifest: Manifest, asked: Relabelling) -> Manifest:
    """The manifest with the requested labels; nothing is saved.

    Parameters
    ----------
    manifest : Manifest
    asked : Relabelling

    Returns
    -------
    Manifest
        `manifest` itself if nothing is requested.

    Raises
    ------
    FitError
        If the images have no labels.
    ManifestError, UnknownNameError, UsageError
        If the table or its columns cannot be used.
    """
    labelling = manifest.labelling
    is_other = (
        asked.group not in (None, labelling.group)
        or asked.label_separator not in (None, labelling.label_separator)
        or asked.min_per_class not in (None, labelling.min_per_class)
    )
    if asked.attributes or asked.labels or is_other:
        manifest = manifest.relabelled(
            attributes=tuple(asked.attributes),
            labels=asked.labels,
            group=asked.group,
            label_separator=asked.label_separator,
            min_per_class=asked.min_per_class,
        )
        tell(manifest.findings)
    if not manifest.attribute_names:
        raise FitError(
            f"The {len(manifest)} images below {manifest.root} have no labels. "
            + (
                f"Name columns of their table in --attributes: {', '.join(manifest.columns)}."
                if manifest.columns
                else "They are in one folder, and one class cannot be told from another: put each "
                "class in a folder of its own, or give a table: featurepipe fit --labels TABLE.csv"
            )
        )
    return manifest


def check_labels(
    manifest: Manifest, split: Split, settings: HeadSettings | NetworkSettings
) -> None:
    """Stop if the labels of the training images cannot be learnt as the settings ask.

    Parameters
    ----------
    manifest : Manifest
    split : Split
    settings : HeadSettings or NetworkSettings

    Raises
    ------
    FitError
        If an attribute has fewer than two classes, a class has a single training image, or the
        joint task gets sets of labels.
    UsageError
        If thresholds are requested, and no attribute has sets of labels.
    """
    labels = manifest.labels(split.ids[split.rows("train")])
    attributes_with_thresholds(labels, settings.task, settings.thresholds)
    check_questions(labels, settings.task)

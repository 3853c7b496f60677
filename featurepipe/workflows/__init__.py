"""The public Python API: one function a command, one file each."""

from featurepipe.workflows.exporting import export
from featurepipe.workflows.extracting import extract
from featurepipe.workflows.fitting import fit
from featurepipe.workflows.predicting import predict
from featurepipe.workflows.repairing import repair
from featurepipe.workflows.reporting import report

__all__ = ["export", "extract", "fit", "predict", "repair", "report"]

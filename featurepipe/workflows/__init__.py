"""The public Python API: one function a command, one file each."""

from featurepipe.workflows.extracting import extract
from featurepipe.workflows.fitting import fit
from featurepipe.workflows.predicting import predict
from featurepipe.workflows.reporting import report

__all__ = ["extract", "fit", "predict", "report"]

"""From scores to answers: questions, calibration, thresholds, rejection."""

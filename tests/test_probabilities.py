import numpy as np

from featurepipe.probabilities import answer_confidence


def test_confidence_is_the_probability_of_the_answer():
    probabilities = np.array([[0.7, 0.2], [0.4, 0.1]])
    exclusive = answer_confidence(probabilities, np.array([0.5, 0.5]), exclusive=True)
    np.testing.assert_allclose(exclusive, [0.7, 0.4])
    of_sets = answer_confidence(probabilities, np.array([0.5, 0.15]), exclusive=False)
    np.testing.assert_allclose(of_sets, [0.7 * 0.2, 0.6 * 0.9])

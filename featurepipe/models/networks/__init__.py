"""Networks: Keras models that read images, trained end to end."""

"""Networks: Keras models trained end to end on images.

A workflow needs, in this order:

* `network_settings.NetworkSettings.of` completes the given options with the recipe of a network;
  `checks.check_settings` and `starting_point.find_starting_points` refuse what cannot be trained
  before any image is decoded;
* `material.Material.of` collects what one training needs by one split;
* `training.train_on` builds the network and trains it;
* `network_heads.finish_network` makes its heads, which answer as those on features do;
* `saved.SavedNetwork` loads the network of a run.

Only `training` and what it imports need Keras.
"""

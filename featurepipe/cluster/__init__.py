"""Work on a Ray cluster; this room knows nothing of images, and imports Ray only when asked to."""

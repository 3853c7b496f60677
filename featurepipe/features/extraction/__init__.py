"""From images to rows of a store: what is stale, one pass over the images, views, pixels."""

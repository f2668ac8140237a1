"""Images: build the app image, join the model, keep both in a registry."""

"""Images: build the app image, join it with a model, load it into an engine, and push it."""

"""The model stream: publish, fetch, describe and prove a model version."""

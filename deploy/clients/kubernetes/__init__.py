"""The client of the API server of a Kubernetes cluster."""

"""An environment in a namespace of a Kubernetes cluster."""

"""An OCI image registry."""

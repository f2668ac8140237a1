"""An environment on one Docker host."""

"""Model stores."""

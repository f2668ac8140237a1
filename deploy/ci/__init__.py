"""The CI systems that releases run in, and what they tell about the run."""

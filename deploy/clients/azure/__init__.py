"""One identity on Azure, by azure-cli-core, and what it opens."""

"""Files that a repository needs to be released, written from what is found in it."""

"""What an app image is made of: the selected files, their states, their revision, their key."""

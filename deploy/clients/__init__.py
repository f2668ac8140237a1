"""The outside world: each module speaks to one kind of server and raises this project's errors only.

Nothing here decides; nothing elsewhere imports docker, kubernetes, azure or obstore.
"""

"""The outside world: each module talks to one kind of server or program.

Clients raise only errors of this project, and decide nothing. They and `deploy/machine/` alone
import HTTP, sockets, processes, docker, kubernetes, azure, obstore and testcontainers.
"""

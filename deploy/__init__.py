"""twinship: newest code and newest model, joined in one image, released and proven.

Reading order:

1. `records`, `errors` and `settings`: the values that everything else is about
2. `pipeline`: release and rollback, from the first stage to the last; `promotion` is next to it
3. `stages`: one function for each stage, with what the stage needs as arguments
4. `model`: publish, fetch and prove a model version
5. `source` and `image`: read the app image's files, build it, join the model, push the image
6. `rollout`: roll a release out to any target, prove it, undo it
7. `targets`: a Docker host, a namespace of a cluster, and the one place that opens them
8. `clients` and `machine`: the only modules that use the network, other programs and stores
9. `context` and `cli`: from a command line to settings, clients and a result
10. `ci` and `init`: the CI system that a run is part of; what a new repository is given

`docs/10-the-code.md` is the map. The package knows nothing of the application that it releases.
"""

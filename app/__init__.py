"""The sample application: it serves the image classifier that the manifest of its model describes.

Reading order: `__main__` starts it, `application` puts it together, `routes` has its paths, `bodies`,
`scoring`, `pictures` and `classifier` are what happens to a request, in that order. `bundle` and
`interface` read the model. It knows nothing of `deploy`.
"""

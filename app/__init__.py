"""The sample application: it serves the image classifier that the manifest of its model describes.

Reading order: `__main__` starts it, `server` runs it, `application` puts it together, and `routes`
has its paths. `bodies`, `workers`, `scoring`, `pictures` and `classifier` are what happens to a
request, in that order. `bundle` and `interface` read the model. It knows nothing of `deploy`.
"""

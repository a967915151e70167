"""What runs in the processes that are compared; see `worker`, which is a program of its own.

The files here need nothing of pyconv but `with_pyconv`, so that the other libraries can be run by
a Python that has no pyconv. One file per library has

``version()``
    import the library, return its name and version;
``prepare(layer, arrays, threads, form)``
    bring a layer into the form in which the library runs it best, and return two functions: one
    that runs it, and one that returns the result as an array, or the gradients as a dict of
    arrays. NotImplementedError says why the library cannot.

`layer` is a dict: ``operator``, ``params`` and ``dtype`` as pyconv has them, ``needs`` with the
arrays whose gradients are wanted (none: the result is), which only pyconv and PyTorch are asked
for, and for the other libraries ``kind`` (``convolution``, ``transposed``, ``separable``,
``deformable``, or None: no library but pyconv has it), ``kernel``, ``stride``, ``padding``,
``dilation`` and ``output_padding`` with one number per axis, ``groups``, ``offset_groups``, and
``winograd``, which is false where Winograd's algorithm is not to be used. `arrays` has ``x``,
``weight`` (``depthwise`` and ``pointwise`` if separable), ``bias``, ``offset`` and ``mask``, and
``grad`` for gradients, channels first, weights with all kernel axes.
"""

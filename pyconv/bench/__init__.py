"""Layers of real networks, timed against the limits of this machine and against other libraries.

==================  ================================================================
``layers``          the layers, by class; ``random_layers`` draws legal ones
``gradients``       the layers whose gradients are timed, by class
``machine``         multiply-add peak and memory bandwidth, measured
``peers``           the program of each library: prepares a layer, runs it when told
``processes``       starts it, talks to it, notices its end
``exact``           results to compare with, and how far off one may be
``definition``      gradients in NumPy, independent of pyconv
``regret``          the algorithm chosen beside the other ones
``runner``          rounds over the processes, one of them running at a time
``results``         medians, spreads, ratios, means
``report_text``     tables
``report_html``     a page with charts
==================  ================================================================

`pyconv.cli.commands.bench` is what people call.
"""

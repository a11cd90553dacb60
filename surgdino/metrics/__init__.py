"""Metrics: pure functions over numpy arrays, each named after its protocol, because papers differ by points through it.

Every score is a fraction in [0, 1] (distances are in pixels or the unit of the spacing given); NaN means undefined and
is left out of means. `arrays.as_json` makes results JSON.
"""

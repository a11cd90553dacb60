"""Metrics: pure functions over numpy arrays, each named after its protocol, because papers differ by points through it.

Every score is a fraction in [0, 1] (distances are in pixels or the unit of the spacing given); NaN means undefined and
is left out of means. Results are frozen dataclasses whose `protocol` says what was computed; `result.as_json` makes
them JSON.
"""

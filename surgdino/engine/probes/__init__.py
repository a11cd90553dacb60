"""What is measured of a backbone, one file each, discovered by name.

A probe file has
    ORDER      where it stands in tables
    MEASURES   name of a finding (or, beginning with `_`, its end behind the name of a task) -> `Measure`
    find       (view: `View`) -> the findings; it yields nothing where the data have not got what it needs
and, where it reads patch tokens,
    dense      (frames, labels of masks or None) -> int64, the places of the frames whose patch tokens it reads
"""

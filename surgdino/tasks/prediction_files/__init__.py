"""Predictions as files that any group can write: phases as text, triplets as CSV, masks as PNG; one idea a file.

What `finetune` leaves in `predictions/` and what `surgdino score` takes from anyone. Frames are numbered as in the
dataset, from 0; readers refuse what does not fit with file, row, expected and found.
"""

from surgdino.tasks.prediction_files.mask_images import (
    MaskImage,
    index_masks,
    read_mask_file,
    read_mask_image,
    write_masks,
)
from surgdino.tasks.prediction_files.matching import match_frames
from surgdino.tasks.prediction_files.phase_text import phase_cells, phase_ids, read_phase, write_phase
from surgdino.tasks.prediction_files.triplet_csv import TripletRows, read_triplets, write_triplets
from surgdino.tasks.prediction_files.video_files import video_files

__all__ = [
    "MaskImage",
    "TripletRows",
    "index_masks",
    "match_frames",
    "phase_cells",
    "phase_ids",
    "read_mask_file",
    "read_mask_image",
    "read_phase",
    "read_triplets",
    "video_files",
    "write_masks",
    "write_phase",
    "write_triplets",
]

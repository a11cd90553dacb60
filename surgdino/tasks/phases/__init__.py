"""What learning phases needs beside its heads: weights for rare phases, and the losses."""

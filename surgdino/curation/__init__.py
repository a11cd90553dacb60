"""Which frames are worth learning from: what is unusable, what comes twice, what is wanted, and in which proportions.

Pure functions over arrays: n frames, D the width of their embeddings; the verb `curate` puts them together.
"""

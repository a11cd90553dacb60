"""Methods, one file each, discovered by file name; `surgdino.engine.method.Method` is their interface."""

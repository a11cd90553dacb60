"""surgdino show: pictures of what training sees."""

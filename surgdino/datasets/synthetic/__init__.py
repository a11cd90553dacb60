"""Small synthetic datasets in the public datasets' exact formats."""
